defmodule Emily.Nodes do
  @moduledoc false
  # Nodes of distributed Erlang beside the one of the tests, which stays out of it: it speaks to them
  # through their standard input and output. What runs on them stands here, since they load compiled
  # modules only.

  import Emily.Observe

  @name Emily.Nodes.Serving
  # Of these nodes alone; without one, Erlang leaves a file in the home folder.
  @cookie to_charlist(Base.encode16(:crypto.strong_rand_bytes(16)))

  @doc """
  Starts a node with Emily on it, known as `name` on this machine only, which ends with the test.
  Returns what `call/4` takes, and the node's name.
  """
  def start_supervised!(name) do
    child = %{id: name, start: {:peer, :start_link, [options(name)]}}
    {:ok, peer, node} = ExUnit.Callbacks.start_supervised(child)
    prepare(peer, node)
  end

  @doc "The same where there is no test, of a node that ends with its caller."
  def start!(name) do
    {:ok, peer, node} = :peer.start(options(name))
    prepare(peer, node)
  end

  defp options(name) do
    %{
      name: ~c"emily_#{name}_#{System.pid()}_#{System.unique_integer([:positive])}",
      host: ~c"127.0.0.1",
      longnames: true,
      connection: :standard_io,
      # Neither the node nor the port mapper that it starts can be reached from elsewhere.
      args: [~c"-kernel", ~c"inet_dist_use_interface", ~c"{127,0,0,1}", ~c"-setcookie", @cookie],
      env: [{~c"ERL_EPMD_ADDRESS", ~c"127.0.0.1"}],
      wait_boot: 60_000,
      shutdown: :close
    }
  end

  defp prepare(peer, node) do
    # As a folder of code the working folder would be the application of its name.
    :ok = call(peer, :code, :add_pathsz, [:code.get_path() -- [~c"."]])
    {:ok, _} = call(peer, :application, :ensure_all_started, [:emily])
    # What goes wrong on it is told to who called it.
    :ok = call(peer, :logger, :set_primary_config, [:level, :none])
    :ok = call(peer, Application, :put_env, [:emily, :fallback, :raise])
    {peer, node}
  end

  @doc "Calls a function on the node."
  def call(peer, module, function, arguments),
    do: :peer.call(peer, module, function, arguments, 60_000)

  ## On the nodes

  @doc "Connects the node to another one, and waits until it knows that one's serving."
  def join(other) do
    {ref, pids} = :pg.monitor(Nx.Serving.PG, @name)
    true = Node.connect(other)
    await(other, ref, pids)
    :pg.demonitor(Nx.Serving.PG, ref)
    :ok
  end

  defp await(other, ref, pids) do
    if other not in Enum.map(pids, &node/1) do
      receive do
        {^ref, :join, _group, more} -> await(other, ref, pids ++ more)
      end
    end
  end

  @doc "The nodes that this one knows the serving of."
  def serving, do: Nx.Serving.PG |> :pg.get_members(@name) |> Enum.map(&node/1) |> Enum.uniq()

  @doc "Starts the serving of that name, which computes `2 * x + 1` and says where."
  def serve(streaming \\ false) do
    serving =
      fn options ->
        Nx.Defn.jit(
          fn x -> x |> Nx.multiply(2) |> observe(:doubled) |> Nx.add(1) end,
          options
        )
      end
      |> Nx.Serving.new(compiler: Emily.Compiler)
      |> Nx.Serving.client_preprocessing(&{Nx.Batch.concatenate([&1]), :no_info})
      |> answer(streaming)

    child = {Nx.Serving, name: @name, serving: serving, batch_size: 4, batch_timeout: 10}
    {:ok, _} = Supervisor.start_child(Emily.Supervisor, child)
    :ok
  end

  defp answer(serving, false) do
    serving
    |> Nx.Serving.client_postprocessing(fn {tensor, _server}, _client -> {node(), tensor} end)
    |> Nx.Serving.distributed_postprocessing(fn {node, tensor} ->
      {node, Nx.backend_copy(tensor, Nx.BinaryBackend)}
    end)
  end

  defp answer(serving, true) do
    serving
    |> Nx.Serving.streaming(hooks: [:doubled])
    |> Nx.Serving.distributed_postprocessing(fn stream ->
      Stream.map(stream, fn
        {:doubled, tensor} -> {:doubled, node(), Nx.backend_copy(tensor, Nx.BinaryBackend)}
        {:batch, tensor, _info} -> {:batch, node(), Nx.backend_copy(tensor, Nx.BinaryBackend)}
      end)
    end)
  end

  @doc "Stops it."
  def stop do
    :ok = Supervisor.terminate_child(Emily.Supervisor, @name)
    Supervisor.delete_child(Emily.Supervisor, @name)
  end

  @doc "What the serving says of numbers that this node has in MLX, not computed before they are sent."
  def ask(numbers, place \\ :any) do
    name = if place == :distributed, do: {:distributed, @name}, else: @name

    case Nx.Serving.batched_run(name, lazy(numbers), &Nx.backend_copy(&1, Nx.BinaryBackend)) do
      {node, tensor} -> {node, Nx.to_list(tensor)}
      stream -> for {kind, node, tensor} <- stream, do: {kind, node, Nx.to_list(tensor)}
    end
  end

  @doc "The reason why the serving does not answer, where the tensor is sent as it is."
  def ask_unprepared(numbers) do
    Nx.Serving.batched_run(@name, lazy(numbers))
  catch
    :exit, reason -> inspect(reason)
  end

  defp lazy(numbers) do
    %Nx.Tensor{data: %Emily.Backend{}} =
      numbers |> Nx.tensor(type: :s32, backend: Emily.Backend) |> Nx.add(1) |> Nx.subtract(1)
  end
end
