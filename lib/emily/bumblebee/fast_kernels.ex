defmodule Emily.Bumblebee.FastKernels do
  @moduledoc """
  Puts the fused kernels of `Emily.Fast` into a Bumblebee model.

      {:ok, model_info} = Bumblebee.load_model({:hf, "HuggingFaceTB/SmolLM2-135M-Instruct"})
      model_info = Emily.Bumblebee.FastKernels.apply(model_info)

  The graph keeps its nodes, names, parameters, inputs and outputs; only what these nodes compute
  with changes:

  | kind | layers of the model | kernel |
  |---|---|---|
  | `:rms_norm` | `Bumblebee.Layers.rms_norm`, `Axon.rms_norm/2` | `Emily.Fast.rms_norm/3` |
  | `:layer_norm` | `Axon.layer_norm/2`, ModernBERT's without a bias | `Emily.Fast.layer_norm/4` |
  | `:rope` | `Bumblebee.Layers.rotary_embedding` | `Emily.Fast.rope_with_freqs/4` |
  | `:attention` | `Bumblebee.Layers.attention` | `Emily.Fast.scaled_dot_product_attention/4` and `..._with_mask/5`, and one over a cache |
  | `:gelu` | `Axon.gelu/2`, Bumblebee's approximation of it by `tanh` | `Emily.Fast.gelu/2` |
  | `:swiglu` | the product with `Axon.silu/2` of a gate | `Emily.Fast.swiglu/2` |
  | `:geglu` | the product with either GELU of a gate | `Emily.Fast.geglu/3` |
  | `:cache` | the cache of grouped keys and values | none: they are cached once |

  It suits every model of Bumblebee 0.7: each is tested against itself as it was. Convolutions, the
  norms of batches and of groups have no kernel here, so ResNet stays as it is. A layer that is not
  recognised, by the very function that it calls, stays as it was. So does a recognised one that
  its kernel cannot express: `report/1` says which and why.

  ## What is decided when the graph is traced

  Types, shapes and modes are known only then, so a rewritten layer computes as before

    * where its tensors are of a type other than f32, f16 and bf16, or of mixed types;
    * attention: where the model is built with `global_layer_options: [output_attentions: true]`,
      which asks for the weights that a fused kernel never has, and in training where the weights
      have a dropout.

  The weights that some models give out unasked (`:cross_attentions` and the like) are computed
  where they are read, as before.

  ## Positions and masks

  A rotation takes the position of every token from the model's `position_ids`, so padding on
  either side means what it did. Linear, dynamic, Llama 3 and LongRoPE scaling become tables of
  frequencies.

  Attention takes padding, causality, sliding windows and relative biases as one additive mask,
  but none

    * where nothing is hidden;
    * for causal attention alone, without padding or a cache: the kernel hides the future itself;
    * with a cache of which is known how much is filled, and that no padding is in it (a prompt
      into a new cache, or pieces of one): the keys and values are cut to that, then likewise.

  "Known" means known when traced: the cache's offset is a constant in the function that calls the
  model, and a mask is not given, or is a constant of ones there.

  In the loop of `Bumblebee.Text.generation/4` both are data: how much of the cache is filled is a number
  in the loop's state, and which of that is padding a mask. There, and wherever causal attention has a
  cache, the compiled program looks at the two once for all layers: once a token, while nothing else is
  to be computed, since the loop has waited for its condition just before. The keys and values are cut
  to those that a query sees, from the first token behind the padding on. What is left is plain and
  causal, and has no mask, unless the sequences of a batch are padded differently, or there is padding
  amid them; then the rest is masked. All of the cache with a mask is taken

    * where a query sees no key, as those of the padding of a prompt do;
    * without a look: eagerly, in `Nx.Defn.Evaluator`, in other compilers, and with `:fuse`;
    * with a sliding window or a relative bias.

  So a long cache costs what is in it. On CUDA, MLX has a fused kernel with a mask only for f16 and
  bf16 and two queries or more.

  ## Grouped keys and values

  Bumblebee repeats keys and values for all heads of queries that share them, and caches them so. A rewritten
  model caches them once: the cache of SmolLM2, whose heads share keys by threes, takes a third of the memory,
  and a token reads a third of it.

  Bumblebee makes the cache with as many heads as there are queries. A rewritten model takes any such cache, and
  gives one of the same shape back, but where the cache is known to be new when traced: where its offset is a
  constant 0, as in `Bumblebee.Text.generation/4` when the prompt has two tokens or more. There its `:cache`
  has `num_key_value_heads` heads, and so has that of every later call with it.

  ## Exactness

  Results agree with the unmodified model's to the rounding of f32. In f16 and bf16 the kernels
  round less often than the layers that they replace. `Nx.Defn.grad/2` differentiates through
  a rewritten model.
  """

  alias Emily.Bumblebee.FastKernels.{Attention, Gate, Grouped, Norm, Rotary}

  @compile {:no_warn_undefined, Axon}

  @typedoc "An `Axon` model, or a map that has one under `:model`, as `Bumblebee.load_model/2` gives it."
  @type model :: Axon.t() | %{required(:model) => Axon.t(), optional(atom()) => term()}

  @typedoc """
  What was rewritten, counted by kind, and what was recognised but left: a count for each kind
  and reason.
  """
  @type report :: %{
          rewritten: %{kind => pos_integer},
          left: %{{kind, reason :: String.t()} => pos_integer}
        }

  @type kind :: :rms_norm | :layer_norm | :gelu | :swiglu | :geglu | :rope | :attention | :cache

  @kinds [Norm, Gate, Rotary, Attention]

  @doc """
  The model with the fused kernels in it: takes an `Axon` model or the map that
  `Bumblebee.load_model/2` gives, and returns the same kind of thing.

  Applied twice it changes nothing more.

  ## Options

    * `:report` - when `true`, returns `{model, report}`, see `report/1`. Defaults to `false`

  ## Examples

      iex> model = Axon.input("x", shape: {nil, 4}) |> Axon.layer_norm() |> Axon.dense(2)
      iex> {_model, report} = Emily.Bumblebee.FastKernels.apply(model, report: true)
      iex> report
      %{rewritten: %{layer_norm: 1}, left: %{}}
  """
  @spec apply(model) :: model
  @spec apply(model, keyword) :: model | {model, report}
  def apply(model, opts \\ []) do
    opts =
      Emily.Native.Options.validate!(opts, [report: false], "Emily.Bumblebee.FastKernels.apply/2")

    model = rewrite(model)
    if opts[:report], do: {model, report(model)}, else: model
  end

  @doc """
  What `apply/2` did to a model: `%{rewritten: counts, left: counts}`.

  Both counts are empty for a model that it was not applied to.

  ## Examples

      iex> model = Axon.input("x", shape: {nil, 4, 4}) |> Axon.layer_norm(channel_index: 1)
      iex> model |> Emily.Bumblebee.FastKernels.apply() |> Emily.Bumblebee.FastKernels.report()
      %{rewritten: %{}, left: %{{:layer_norm, "channel_index is 1, not -1"} => 1}}
  """
  @spec report(model) :: report
  def report(model) when is_struct(model, Axon) do
    Axon.reduce_nodes(model, %{rewritten: %{}, left: %{}}, fn node, report ->
      case node.meta do
        %{emily: {:rewritten, kind}} -> count(report, :rewritten, kind)
        %{emily: {:left, kind, reason}} -> count(report, :left, {kind, reason})
        _ -> report
      end
    end)
  end

  def report(%{model: model}) when is_struct(model, Axon), do: report(model)
  def report(other), do: refuse!("report/1", other)

  defp count(report, part, key) do
    update_in(report[part], &Map.update(&1, key, 1, fn n -> n + 1 end))
  end

  defp rewrite(%{nodes: nodes} = model) when is_struct(model, Axon) do
    model
    |> Axon.map_nodes(fn node ->
      Enum.find_value(@kinds, node, fn module ->
        case module.rewrite(node, nodes) do
          {:rewritten, kind, node} -> mark(node, {:rewritten, kind})
          {:left, _kind, _reason} = left -> mark(node, left)
          nil -> nil
        end
      end)
    end)
    |> Grouped.rewrite(&mark/2)
  end

  defp rewrite(%{model: model} = info) when is_struct(model, Axon),
    do: %{info | model: rewrite(model)}

  defp rewrite(other), do: refuse!("apply/2", other)

  # Axon carries a node's meta along and does not read it.
  defp mark(node, mark), do: %{node | meta: Map.put(node.meta || %{}, :emily, mark)}

  defp refuse!(fun, other) do
    raise ArgumentError,
          "Emily.Bumblebee.FastKernels.#{fun} expects an Axon model or a map with one under " <>
            ":model, got: #{inspect(other, limit: 5)}"
  end
end
