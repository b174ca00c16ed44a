defmodule Emily.Native.Program do
  @moduledoc """
  Functions of arrays, decoded once and run by one call each.

  A function is `{parameters, steps, results}`: a list of integers that name its arrays, a list of
  `{id, expression}` whose ids name values for what follows, and a list of expressions. Expressions
  are those of `Emily.Native.run/2`, where `{:var, id}` is a parameter or an earlier value; arrays in
  them belong to the program from then on.

      iex> double_and_add = {[0, 1], [{2, {:add, {:var, 0}, {:var, 0}}}], [{:add, {:var, 2}, {:var, 1}}]}
      iex> program = Emily.Native.Program.compile(double_and_add)
      iex> [x, y] = Emily.Native.run([{:full, [], 3, :s32}, {:full, [], 1, :s32}])
      iex> [sum] = Emily.Native.Program.run(program, [x, y])
      iex> Emily.Native.item(sum)
      7

  ## Conditions and loops

  Two expressions wait for what they depend on, and give several results:

    * `{:cond, predicate, yes, no}` - the results of one of two functions without parameters, which
      may use the values around them. Only that one runs
    * `{:while, initial, condition, body}` - `body` over the state `initial`, a list of expressions,
      as long as `condition` holds. Both are functions of the state; `condition` gives one boolean,
      `body` the next state, each array of which has the type and the shape that it has in `initial`: a run
      in which it has others raises an `ArgumentError`

  A program with these runs on a thread of its own, and its caller waits for a message, so no
  scheduler waits. Where nobody else holds the state of a loop, MLX computes the next in its place.
  A loop whose iterations are short is built a few iterations ahead of its condition; what was built
  too far is dropped.

      iex> count = {[0], [], [{:add, {:var, 0}, {:full, [], 1, :s32}}]}
      iex> below_ten = {[0], [], [{:less, {:var, 0}, {:full, [], 10, :s32}}]}
      iex> program = Emily.Native.Program.compile({[0], [], [{:while, [{:var, 0}], below_ten, count}]})
      iex> [start] = Emily.Native.run([{:full, [], 3, :s32}])
      iex> [ten] = Emily.Native.Program.run(program, [start])
      iex> Emily.Native.item(ten)
      10

  `:cached_attention` waits too, for its `key_mask` and `offset`: it computes over the keys that are
  seen, without a mask where they have no gaps. A program that is fused on a GPU has the mask.

  ## Calls

  `{:call, index, operands, count}` hands arrays to the function that `run/4` was given, together
  with the index, and gives the `count` arrays that it answers. The function runs in the process
  that called `run/4`, one call after the other. A program does not wait for calls with no results,
  but for a few of them at once; `run/4` returns after the last. What the function raises ends the
  program.

      iex> program = Emily.Native.Program.compile({[0], [], [{:elem, 0, {:call, 7, [{:var, 0}], 1}}]})
      iex> [x] = Emily.Native.run([{:full, [], 3, :s32}])
      iex> [y] = Emily.Native.Program.run(program, [x], :cpu, fn 7, [x] -> Emily.Native.run([{:negative, x}]) end)
      iex> Emily.Native.item(y)
      -3
  """

  alias Emily.Native
  alias Emily.Native.{Answer, Nif, Options, Scoped}

  @enforce_keys [:ref, :operations, :waits]
  defstruct [:ref, :operations, :waits]

  @typedoc "A compiled program, how many operations it has, and whether it waits."
  @type t :: %__MODULE__{ref: reference, operations: non_neg_integer, waits: boolean}

  @typedoc "Parameters, steps and results; see the module's documentation."
  @type fun_term ::
          {[integer], [{integer, Native.expression()}], [Native.expression()]}

  @typedoc "What a program calls, with the index of a call and its operands."
  @type call :: (non_neg_integer, [Native.array()] -> [Native.array()])

  # The key in a process's dictionary that says that the process answers a call.
  @answering {__MODULE__, :answering}

  # How often, and how many milliseconds apart, a program asks for room that others hold whose processes are busy.
  @patience 600
  @pause 100

  # About a millisecond of building; what takes longer leaves the scheduler to others.
  @long 500

  @doc """
  Compiles a function.

  On a CPU runs of elementwise operations, and a reduction of what they give, become one kernel of Emily's own, which
  computes what the operations do, bit for bit; `fuse: false` leaves them apart. With `fuse: true` MLX compiles the
  program on a GPU (`mx.compile`) when it is first run: what lies between operations is not rounded. A
  function with conditions, loops, calls or linear algebra keeps its operations apart there.

  With `results: [{type, shape}]`, the shapes as lists, a run whose results are others raises an
  `ArgumentError` with both.

  Raises `ArgumentError` for what is no function of known operations, and for one that comes to more than
  2^24 list elements, bytes of text and elements of expressions, each of which counts 8 more; what a term
  shares counts as often as it is named.

      iex> Emily.Native.Program.compile({[0], [], [{:exp, {:var, 0}}]}).operations
      1

      iex> Emily.Native.Program.compile({[], [], [{:var, 0}]})
      ** (ArgumentError) variable 0 is not bound here
  """
  @spec compile(fun_term, keyword) :: t
  def compile(function, opts \\ []) do
    opts = Options.validate!(opts, [fuse: nil, results: nil], "Emily.Native.Program.compile/2")
    {ref, operations, waits} = Nif.compile(function, opts[:fuse], opts[:results])
    %__MODULE__{ref: ref, operations: operations, waits: waits}
  end

  @doc """
  Runs a program on arrays, one for each parameter, with a function for its calls, and the positions of the arrays
  that are donated.

  Without conditions and loops the results are uncomputed, as those of `Emily.Native.run/2`; a long
  graph is on its way to being computed.

  Of programs that wait, up to 512 run at once, of which 256 compute; the next begin when others have ended, or raise
  an `Emily.Error` where there is no room within a minute. What the function for calls runs in its own process begins at
  once, up to 1024.

  ## Donation

  A donated array is the program's from the moment the run begins, however it ends: whoever uses it later gets an
  `ArgumentError`. What was built on it before, and a binary that was read from it, keep what it was.

  On a CPU such a program runs on a thread of its own, which computes its results, in an order that needs little memory:
  each array ends with its last use, and an elementwise operation writes over an operand that ends, a donated
  one too, unless somebody else holds it. So does what updates a part of an array.

      iex> add = Emily.Native.Program.compile({[0, 1], [], [{:add, {:var, 0}, {:var, 1}}]})
      iex> [x, y] = Emily.Native.run([{:full, [2], 3, :s32}, {:full, [2], 1, :s32}])
      iex> [sum] = Emily.Native.Program.run(add, [x, y], :cpu, fn _, _ -> [] end, [0])
      iex> Emily.Native.to_binary(sum)
      <<4::32-native, 4::32-native>>
      iex> Emily.Native.shape(x)
      ** (ArgumentError) the tensor was donated to a call, which has taken its memory: use what that call has returned
  """
  @spec run(t, [Native.array()], Native.device(), call, [non_neg_integer]) :: [Native.array()]
  def run(program, arrays, device \\ Native.default_device(), call \\ &no_call/2, donated \\ [])

  def run(%__MODULE__{waits: waits, ref: ref}, arrays, device, call, donated)
      when waits or donated != [] do
    tag = make_ref()

    begin = fn nested ->
      Nif.run_waiting_program(ref, arrays, device, tag, {donated, nested})
    end

    start(begin, @patience)
    await(tag, call)
  end

  def run(%__MODULE__{operations: operations, ref: ref}, arrays, device, _call, _donated)
      when operations > @long,
      do: ref |> Nif.run_long_program(arrays, device) |> Native.built()

  def run(%__MODULE__{ref: ref}, arrays, device, _call, _donated),
    do: ref |> Nif.run_program(arrays, device) |> Native.built()

  def run(other, _arrays, _device, _call, _donated) do
    raise ArgumentError,
          "Emily.Native.Program.run/5 expects a program of compile/2, got: #{inspect(other, limit: 10)}"
  end

  defp start(begin, patience) do
    nested = Process.get(@answering, false)

    case begin.(nested) do
      :queued ->
        :ok

      :full ->
        Answer.again(fn -> start(begin, patience) end)

      :crowded when nested or patience == 0 ->
        raise Emily.Error,
              "no room for one more program: too many wait for the functions that they have called"

      :crowded ->
        Process.sleep(@pause)
        start(begin, patience - 1)
    end
  end

  defp no_call(index, _arrays) do
    raise ArgumentError, "the program has a call #{index}, and run/4 got no function for calls"
  end

  defp await(tag, call) do
    receive do
      {^tag, {:call, run, index, arrays}} ->
        answer(tag, run, fn -> call.(index, arrays) end)
        await(tag, call)

      {^tag, answer} ->
        Answer.given(answer)
    end
  end

  defp answer(tag, run, call) do
    results = answering(call)
    Native.eval(results)
    Nif.answer_call(run, results)
  catch
    kind, reason ->
      Nif.abort_run(run)
      await_end(tag)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  # What runs meanwhile in this process must not wait for the program that waits for it.
  defp answering(call), do: Scoped.set(@answering, true, call)

  defp await_end(tag) do
    receive do
      {^tag, {:call, _run, _index, _arrays}} -> await_end(tag)
      {^tag, _answer} -> :ok
    end
  end
end
