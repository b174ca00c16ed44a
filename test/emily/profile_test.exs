defmodule Emily.ProfileTest do
  use Emily.CompilerCase, async: true

  alias Emily.Profile

  doctest Emily.Profile

  @on_emily {Emily.Backend, device: :cpu}

  defp x, do: Nx.iota({10, 10}, type: :f32, backend: @on_emily)

  defp counts(profile), do: Map.new(Profile.rows(profile), &{&1.op, {&1.calls, &1.bytes}})

  describe "run/1" do
    test "counts calls and bytes, and gives the result" do
      x = x()

      profile =
        Profile.run(fn ->
          y = Nx.dot(x, x)
          {Nx.to_number(Nx.sum(y)), Nx.argmax(Nx.as_type(y, :f16), axis: 1), Nx.exp(Nx.exp(x))}
        end)

      assert {sum, %Nx.Tensor{}, %Nx.Tensor{}} = profile.result
      assert sum == x |> Nx.backend_copy() |> then(&Nx.dot(&1, &1)) |> Nx.sum() |> Nx.to_number()

      # 100 numbers of 4 bytes, of 2, and 10 of 4.
      assert counts(profile) == %{
               "dot" => {1, 3 * 400},
               "sum" => {1, 404},
               "as_type" => {1, 600},
               "argmax" => {1, 200 + 40},
               "exp" => {2, 4 * 400}
             }
    end

    test "events lie in their order within the whole, and shares make one" do
      x = x()
      before = System.monotonic_time(:nanosecond)
      profile = Profile.run(fn -> x |> Nx.dot(x) |> Nx.exp() |> Nx.sum() |> Nx.to_number() end)
      took = System.monotonic_time(:nanosecond) - before

      assert profile.duration in 1..took
      ends = for event <- profile.events, do: {event.start, event.start + event.time}
      flat = Enum.flat_map(ends, &Tuple.to_list/1)
      assert flat == Enum.sort(flat)
      assert hd(flat) >= 0 and List.last(flat) <= profile.duration
      assert Enum.map(profile.events, & &1.op) == ["dot", "exp", "sum"]
      assert hd(profile.events).operands == ["{10, 10} f32", "{10, 10} f32"]
      assert_in_delta profile |> Profile.rows() |> Enum.map(& &1.share) |> Enum.sum(), 1.0, 1.0e-9
    end

    test "takes compiled functions apart, and their loops" do
      fun = fn x -> Nx.exp(Nx.sum(x, axes: [0])) end
      x = x()
      jit = Nx.Defn.jit(fun, compiler: Emily.Compiler)
      expected = jit.(x)
      profile = Profile.run(fn -> jit.(x) end)
      assert profile |> counts() |> Map.keys() == ["exp", "sum"]
      assert_equal(profile.result, Nx.backend_copy(expected))

      loop = Nx.Defn.jit(&looped/1, compiler: Emily.Compiler)
      assert %{"multiply" => {3, _}} = counts(Profile.run(fn -> loop.(x) end))
    end

    import Nx.Defn

    defn looped(x) do
      {x, _} =
        while {x, i = 0}, i < 3 do
          {x * 0.5, i + 1}
        end

      x
    end

    test "has a function that was compiled before as one entry" do
      run =
        Nx.Defn.compile(fn x -> Nx.exp(Nx.sum(x)) end, [Nx.to_template(x())],
          compiler: Emily.Compiler
        )

      x = x()
      assert counts(Profile.run(fn -> run.(x) end)) == %{"program" => {1, 404}}
    end

    test "has what leaves MLX" do
      x = on_emily_s32([1, 5, 2])

      profile =
        Emily.Fallback.with_mode(:silent, fn ->
          Profile.run(fn -> Nx.to_number(Nx.reduce(x, 0, &Nx.subtract/2)) end)
        end)

      assert profile.result ==
               x |> Nx.backend_copy() |> Nx.reduce(0, &Nx.subtract/2) |> Nx.to_number()

      assert %{"reduce" => {1, 16}} = counts(profile)
    end

    defp on_emily_s32(list), do: Nx.tensor(list, type: :s32, backend: @on_emily)

    test "does not count work that was asked for before" do
      pending = Enum.reduce(1..20, x(), fn _, y -> Nx.sin(y) end)
      profile = Profile.run(fn -> Nx.negate(pending) end)
      assert counts(profile) == %{"negate" => {1, 800}}
    end

    test "is over when its function ends or raises, for this process alone" do
      refute Profile.on?()
      assert_raise RuntimeError, "no", fn -> Profile.run(fn -> raise "no" end) end
      refute Profile.on?()
      x = x()

      profile =
        Profile.run(fn ->
          assert Profile.on?()
          Task.await(Task.async(fn -> Nx.to_binary(Nx.exp(x)) end))
          assert_raise ArgumentError, ~r/running/, fn -> Profile.run(fn -> 1 end) end
          :done
        end)

      assert {profile.result, profile.events} == {:done, []}
      refute Profile.on?()

      for wrong <- [nil, & &1, :fun],
          do: assert_raise(ArgumentError, ~r"run/1", fn -> Profile.run(wrong) end)
    end
  end

  # Times of a profile that was written by hand.
  defp by_hand do
    event = %{
      op: "dot",
      start: 1_000,
      time: 3_000_000,
      bytes: 2_500_000,
      operands: ["{2, 2} f32"]
    }

    %Profile{
      result: nil,
      duration: 6_000_000,
      events: [
        event,
        %{event | op: "a\"b\\\n", start: 3_500_000, time: 1_000_000, bytes: 10_000},
        %{event | start: 4_500_000, time: 1_000_000, bytes: 0}
      ]
    }
  end

  test "table/1 lines the columns up, the longest first" do
    assert Profile.table(by_hand()) |> String.replace("a\"b\\\n", "other") == """
           operation  calls     ms    MB   share
           dot            2  4.000  2.50   80.0%
           other          1  1.000  0.01   20.0%
           all            3  5.000  2.51  100.0%
           """
  end

  test "table/1 of nothing" do
    assert Profile.table(%Profile{result: nil, duration: 1, events: []}) |> String.split() ==
             ["operation", "calls", "ms", "MB", "share", "all", "0", "0.000", "0.00", "0.0%"]
  end

  if Code.ensure_loaded?(Jason) do
    @tag :tmp_dir
    test "write_trace/2 writes JSON in Chrome's form", %{tmp_dir: folder} do
      path = Path.join(folder, "trace.json")
      assert Profile.write_trace(by_hand(), path) == :ok
      %{"traceEvents" => [whole, dot, other, _]} = path |> File.read!() |> Jason.decode!()

      assert %{"ph" => "X", "name" => "Emily.Profile.run", "ts" => +0.0, "dur" => 6.0e3} = whole
      assert %{"name" => "dot", "ts" => 1.0, "dur" => 3.0e3, "args" => args, "pid" => pid} = dot
      assert args == %{"bytes" => 2_500_000, "operands" => "{2, 2} f32"}
      assert %{"name" => "a\"b\\\n", "pid" => ^pid} = other

      assert_raise File.Error, fn ->
        Profile.write_trace(by_hand(), Path.join(folder, "no/trace"))
      end
    end
  end
end
