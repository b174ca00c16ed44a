defmodule Emily.Generation do
  @moduledoc """
  A decoding loop for models that are written by hand, outside of Bumblebee.

  A model is a function that takes one token and its position, and gives the logits of the next, with a cache that
  it carries from step to step. `stream/2` compiles it once, and calls it token by token:

      iex> forward = fn token, position, seen, weights ->
      ...>   {Nx.dot(Nx.equal(Nx.iota({5}), token), weights), Nx.put_slice(seen, [position], Nx.reshape(token, {1}))}
      ...> end
      iex> # Each token is followed by the one after it.
      iex> weights = Nx.eye(5) |> Nx.reverse(axes: [0]) |> Nx.reverse(axes: [1]) |> Nx.pad(0, [{0, 0, 0}, {1, -1, 0}])
      iex> Emily.Generation.stream(forward,
      ...>   params: weights,
      ...>   cache: Nx.broadcast(0, {8}),
      ...>   first_token: 0,
      ...>   max_new_tokens: 8,
      ...>   eos: 3
      ...> )
      [1, 2, 3]
  """

  import Nx.Defn
  alias Nx.Tensor, as: T

  @typedoc "A model: a token, its position, the cache and the parameters give logits and the next cache."
  @type forward ::
          (Nx.Tensor.t(), Nx.Tensor.t(), Nx.Container.t(), Nx.Container.t() ->
             {Nx.Tensor.t(), Nx.Container.t()})

  @doc """
  The place of the greatest logit along the last axis; the first of equals. Also within `defn`.

      iex> Emily.Generation.greedy(Nx.tensor([0.1, 0.7, 0.2])) |> Nx.to_number()
      1
  """
  @spec greedy(Nx.Tensor.t()) :: Nx.Tensor.t()
  deftransform(greedy(logits), do: Nx.argmax(logits, axis: -1))

  @doc """
  Generates tokens, and answers the list of their ids.

  `forward.(token, position, cache, params)` gives `{logits, cache}`. The token is a tensor of the shape and the type of
  `:first_token`, the position a scalar: `:offset` for the first token, and one more for each that follows. The cache that
  it gives is that of the next step, of the same shapes and types.

  The ids are those of the new tokens, without the first. The last is one of `:eos`, or the loop ended because there were
  `:max_new_tokens`.

  ## Options

    * `:params` - the last argument of `forward`: a tensor, or a container of them. Required
    * `:cache` - the cache of the first step, such a container too. Required
    * `:first_token` - the token to begin with: an id, or a tensor of one element. Required
    * `:max_new_tokens` - how many tokens at most. Required
    * `:offset` - the position of the first token. Defaults to `0`
    * `:eos` - the id that ends the text, or a list of such ids. Defaults to `[]`
    * `:select` - what picks the next token of the logits: a function that gives an id, or a tensor of one element. It is
      not compiled, so that it may draw random numbers as it likes. Defaults to `greedy/1`
    * `:on_token` - a function that is called with each id, as soon as it is known
    * `:defn_options` - options of `Nx.Defn.jit/2` for `forward`. The compiler is `Emily.Compiler` where they name none

  Raises an `ArgumentError` for other options, and for values that they do not take.
  """
  @spec stream(forward, keyword) :: [integer]
  def stream(forward, opts) when is_function(forward, 4) do
    opts = options(opts)
    first = Nx.to_tensor(opts[:first_token])

    if Nx.size(first) != 1 or not Nx.Type.integer?(first.type),
      do: refuse(:first_token, "an id or a tensor of one integer", opts[:first_token])

    jit = Keyword.put_new(opts[:defn_options], :compiler, Emily.Compiler)
    step = Nx.Defn.jit(forward, jit)

    generate(opts[:max_new_tokens], first, opts[:offset], opts[:cache], fn token, at, cache ->
      {logits, cache} = step.(token, at, cache, opts[:params])
      {token, id} = next(opts[:select].(logits), first)
      if opts[:on_token], do: opts[:on_token].(id)
      {token, id, cache, id in opts[:eos]}
    end)
  end

  def stream(forward, _opts) do
    raise ArgumentError,
          "Emily.Generation.stream/2 expects a function of a token, a position, a cache and parameters, got: " <>
            inspect(forward)
  end

  defp generate(0, _token, _at, _cache, _step), do: []

  defp generate(left, token, at, cache, step) do
    case step.(token, at, cache) do
      {_token, id, _cache, true} -> [id]
      {token, id, cache, false} -> [id | generate(left - 1, token, at + 1, cache, step)]
    end
  end

  # A selected token as the first one was, and its id.
  defp next(id, first) when is_integer(id),
    do: {id |> Nx.tensor(type: first.type) |> Nx.reshape(first), id}

  defp next(%T{} = selected, first) do
    if Nx.size(selected) != 1 or not Nx.Type.integer?(selected.type),
      do: refuse(:select, "a function that gives an id or a tensor of one integer", selected)

    token = selected |> Nx.as_type(first.type) |> Nx.reshape(first)
    {token, token |> Nx.reshape({}) |> Nx.to_number()}
  end

  defp next(other, _first), do: refuse(:select, "a function that gives an id or a tensor", other)

  defp options(opts) do
    known =
      [:params, :cache, :first_token, :max_new_tokens, offset: 0, eos: [], select: &greedy/1] ++
        [on_token: nil, defn_options: []]

    opts = Emily.Native.Options.validate!(opts, known, "Emily.Generation.stream/2")

    for name <- [:params, :cache, :first_token, :max_new_tokens],
        not Keyword.has_key?(opts, name) do
      raise ArgumentError, "Emily.Generation.stream/2 needs the option #{inspect(name)}"
    end

    opts = Keyword.update!(opts, :eos, &List.wrap/1)
    check(opts, :max_new_tokens, "a number from 0", &(is_integer(&1) and &1 >= 0))
    check(opts, :offset, "a number from 0", &(is_integer(&1) and &1 >= 0))
    check(opts, :eos, "an id or a list of ids", fn ids -> Enum.all?(ids, &is_integer/1) end)
    check(opts, :select, "a function of the logits", &is_function(&1, 1))
    check(opts, :on_token, "a function of an id", &(is_nil(&1) or is_function(&1, 1)))
    check(opts, :defn_options, "a keyword list", &Keyword.keyword?/1)
    opts
  end

  defp check(opts, name, what, valid?),
    do: if(not valid?.(opts[name]), do: refuse(name, what, opts[name]))

  @spec refuse(atom, String.t(), term) :: no_return
  defp refuse(name, what, value) do
    raise ArgumentError,
          "Emily.Generation.stream/2: #{inspect(name)} must be #{what}, got: #{inspect(value)}"
  end
end
