ExUnit.start(timeout: 900_000, assert_receive_timeout: 60_000)
