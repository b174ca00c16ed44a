defmodule Emily.Compiler.Options do
  @moduledoc false
  # The options of `Emily.Compiler`, which documents them.

  alias Emily.{Finite, Profile}

  defstruct [:device, :partition, :hooks, :cache, :native, :fallback, :max_concurrency] ++
              [:fuse, :check_finite, :donate, :garbage_collect, :log]

  @own [:device, :partition, :hooks, :cache, :native, :native_fallback, :max_concurrency] ++
         [:fuse, :check_finite, :donate, :garbage_collect, :debug_options]

  # `:evaluate` is the former name of `:eval`.
  @fallbacks [nil, :raise, :warn, :eval, :evaluate]

  # Nx.Serving and Axon forward their own to the compiler.
  @forwarded [:batch_keys, :backend, :debug, :mode, :seed, :print_values, :raise_on_none] ++
               [:global_layer_options, :strict?]

  @levels Logger.levels()

  @doc "The options in force. Raises `ArgumentError` for others, and for values that they do not take."
  def validate!(opts) do
    for {name, _} <- opts, name not in @own and name not in @forwarded do
      raise ArgumentError,
            "Emily.Compiler: unknown option #{inspect(name)}; it takes #{inspect(@own)}"
    end

    watched(%__MODULE__{
      device: device(opts),
      partition: check(opts, :partition, nil, &(is_nil(&1) or (is_integer(&1) and &1 >= 0))),
      hooks:
        for(
          {name, hook} <- check(opts, :hooks, %{}, &hooks?/1),
          hook,
          into: %{},
          do: {name, hook}
        ),
      cache: check(opts, :cache, true, &is_boolean/1),
      native: check(opts, :native, true, &is_boolean/1),
      check_finite: check(opts, :check_finite, nil, &(is_boolean(&1) or is_nil(&1))),
      fallback: fallback(check(opts, :native_fallback, nil, &(&1 in @fallbacks))),
      max_concurrency: check(opts, :max_concurrency, 1, &(is_integer(&1) and &1 > 0)),
      fuse: check(opts, :fuse, nil, &(is_boolean(&1) or is_nil(&1))),
      donate: check(opts, :donate, [], &positions?/1),
      garbage_collect: check(opts, :garbage_collect, false, &is_boolean/1),
      log: check(opts, :debug_options, [], &debug?/1)[:log]
    })
  end

  # What looks at operations wants them one by one.
  defp watched(options) do
    check_finite =
      if options.check_finite == nil, do: Finite.configured?(), else: options.check_finite

    native = options.native and not check_finite and not Profile.on?()
    %{options | check_finite: check_finite, native: native}
  end

  defp check(opts, name, default, valid?) do
    value = Keyword.get(opts, name, default)

    if not valid?.(value) do
      raise ArgumentError, "Emily.Compiler: #{inspect(name)} cannot be #{inspect(value)}"
    end

    value
  end

  defp device(opts) do
    own =
      case {Keyword.take(opts, [:device]), Nx.default_backend()} do
        {[], {Emily.Backend, backend}} -> Keyword.take(backend, [:device])
        {device, _} -> device
      end

    Emily.Backend.init(own)[:device]
  end

  defp fallback(nil), do: if(Emily.Fallback.mode() == :raise, do: :raise, else: :eval)
  defp fallback(:evaluate), do: :eval
  defp fallback(chosen), do: chosen

  # As for Nx's evaluator, nil is no function.
  defp hooks?(hooks) when is_map(hooks),
    do: Enum.all?(hooks, fn {_name, hook} -> is_nil(hook) or is_function(hook, 1) end)

  defp hooks?(hooks), do: Keyword.keyword?(hooks) and hooks?(Map.new(hooks))

  defp positions?(positions),
    do: is_list(positions) and Enum.all?(positions, &(is_integer(&1) and &1 >= 0))

  defp debug?([]), do: true
  defp debug?(log: level), do: level in @levels
  defp debug?(_other), do: false
end
