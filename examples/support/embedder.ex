defmodule Embedder do
  @moduledoc """
  all-MiniLM-L6-v2, loaded by Bumblebee, with Emily's kernels: texts become vectors of length one.
  """

  # The longest input that the model was trained for (sentence_bert_config.json).
  @max_length 256

  @doc """
  A serving of the model in `dir` for as many texts as these, padded to the longest of them.
  """
  def serving!(dir, texts) do
    {:ok, model} =
      Demo.step("Loading the model", fn -> Bumblebee.load_model({:local, dir}) end)

    {:ok, tokenizer} =
      Demo.step("Loading the tokenizer", fn -> Bumblebee.load_tokenizer({:local, dir}) end)

    longest = Nx.axis_size(Bumblebee.apply_tokenizer(tokenizer, texts)["input_ids"], 1)

    model
    |> Emily.Bumblebee.FastKernels.apply()
    |> Bumblebee.Text.text_embedding(tokenizer,
      output_attribute: :hidden_state,
      output_pool: :mean_pooling,
      embedding_processor: :l2_norm,
      compile: [batch_size: length(texts), sequence_length: min(longest, @max_length)],
      defn_options: [compiler: Emily.Compiler]
    )
  end

  @doc """
  The vectors of the texts, one a row.
  """
  def embed(serving, texts) do
    # A serving answers with tensors of Nx.BinaryBackend.
    Nx.Serving.run(serving, texts)
    |> Enum.map(& &1.embedding)
    |> Nx.stack()
    |> Nx.backend_transfer(Nx.default_backend())
  end

  @doc """
  The cosine of each row of `a` with each row of `b`, a list of rows.
  """
  def similarities(a, b) do
    # The rows are of length one: their products are the cosines.
    a |> Nx.dot([1], b, [1]) |> Nx.to_list()
  end
end
