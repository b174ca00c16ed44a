defmodule Page do
  # Livebook's part: takes what cells put out, prints it, answers what inputs hold, and fills in forms.
  #
  # Kino asks its group leader for all it wants of Livebook, by the messages that Kino.Bridge has.

  use GenServer

  @doc "Starts Kino, and takes the outputs of this process and of those that it starts."
  def open do
    {:ok, _} = Application.ensure_all_started([:kino, :kino_vega_lite])
    {:ok, page} = GenServer.start_link(__MODULE__, Process.group_leader())
    Process.group_leader(self(), page)
    page
  end

  @doc "Prints what a cell gives, as Livebook would show it."
  def show(page, value),
    do: GenServer.call(page, {:show, Kino.Render.to_livebook(value)}, :infinity)

  @doc "What was put out, first things first, as Kino describes it."
  def outputs(page), do: GenServer.call(page, :outputs)

  @doc "Submits the form of the page with each of the texts, and waits until all are dealt with."
  def submit(page, texts) do
    form = GenServer.call(page, :form) || raise("no cell shows a form to say this in")
    [{field, _input}] = form.attrs.fields
    ended = form |> listener() |> Process.monitor()

    for text <- texts do
      event = %{type: :submit, origin: "a reader", data: %{field => text}}
      send(form.destination, {:event, form.ref, event})
    end

    # As when the cell is left: the listener ends behind what was submitted.
    send(form.destination, {:clear_topic, form.ref})

    receive do
      {:DOWN, ^ended, _, _, reason} when reason in [:normal, :noproc] -> IO.puts("")
      {:DOWN, ^ended, _, _, reason} -> exit(reason)
    end
  end

  # It listens some time after the cell that started it.
  defp listener(form) do
    case :sys.get_state(form.destination).topic_with_subscribers[form.ref] do
      [{pid, _info}] ->
        pid

      nil ->
        Process.sleep(10)
        listener(form)
    end
  end

  @impl true
  def init(terminal),
    do: {:ok, %{terminal: terminal, form: nil, pictures: 0, inputs: %{}, outputs: []}}

  @impl true
  def handle_call({:show, output}, _from, state), do: {:reply, :ok, print(output, state)}
  def handle_call(:form, _from, state), do: {:reply, state.form, state}
  def handle_call(:outputs, _from, state), do: {:reply, Enum.reverse(state.outputs), state}

  @impl true
  def handle_info({:io_request, from, ref, {:livebook_put_output, output}}, state) do
    state = print(output, state)
    send(from, {:io_reply, ref, :ok})
    {:noreply, state}
  end

  def handle_info({:io_request, from, ref, request}, state) do
    case request do
      # As in Livebook, an input holds what it was made with until a reader changes it, and is there once it was shown.
      {:livebook_get_input_value, id, _pid} ->
        answer = with :error <- Map.fetch(state.inputs, id), do: {:error, :not_found}
        send(from, {:io_reply, ref, answer})

      {:livebook_reference_object, _, _} ->
        send(from, {:io_reply, ref, :ok})

      {:livebook_monitor_object, _, _, _, _} ->
        send(from, {:io_reply, ref, :ok})

      _ ->
        send(state.terminal, {:io_request, from, ref, request})
    end

    {:noreply, state}
  end

  defp print(output, state) do
    state = %{state | outputs: [output | state.outputs]}

    case output do
      %{outputs: outputs} ->
        Enum.reduce(outputs, state, &print/2)

      %{type: :input, id: id, attrs: attrs} ->
        put(state, "\n[an input: #{attrs.label} #{inspect(attrs.default)}]\n")
        put_in(state.inputs[id], attrs.default)

      %{type: :js, export: true, js_view: view} ->
        put(state, "=> a chart or a view: #{inspect(view.ref)}\n")
        state

      %{type: :js} ->
        put(state, "=> a view that changes\n")
        state

      %{type: :frame_update, update: {_, outputs}} ->
        Enum.reduce(outputs, state, &print/2)

      %{type: :control, attrs: %{type: :form}} ->
        put(state, "\n[a form]\n")
        %{state | form: output}

      %{type: :image, content: content, mime_type: type} ->
        number = state.pictures + 1
        extension = type |> Path.basename() |> String.replace("+xml", "")
        path = Path.join(System.tmp_dir!(), "livebook-#{System.pid()}-#{number}.#{extension}")
        File.write!(path, content)
        put(state, "=> a picture: #{path}\n")
        %{state | pictures: number}

      %{type: :markdown, text: text} ->
        put(state, "\n#{text}\n")
        state

      %{text: text, chunk: true} ->
        put(state, text)
        state

      %{text: text} ->
        put(state, "=> #{text}\n")
        state

      other ->
        put(state, "=> #{inspect(other, limit: 10)}\n")
        state
    end
  end

  defp put(state, text), do: IO.write(state.terminal, text)
end
