# No test is about time: this ends one that hangs, on a busy machine too.
ExUnit.start(timeout: 900_000, assert_receive_timeout: 60_000)
