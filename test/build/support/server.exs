# Mix hides what the project does not depend on.
for application <- [:public_key, :ssl], do: Mix.ensure_application!(application)

defmodule Emily.BuildServer do
  import ExUnit.Callbacks

  # A server on the loopback that answers as it is told, and keeps what it was asked for.

  @doc """
  Starts it, with a function of a path and its headers (a map) that gives what is sent before the connection is closed.
  Returns its address.
  """
  def start(answer) do
    {:ok, listener} =
      :gen_tcp.listen(0, [:binary, packet: :http_bin, active: false, ip: {127, 0, 0, 1}])

    {:ok, port} = :inet.port(listener)
    test = self()
    address = "http://127.0.0.1:#{port}"
    task = {Task, fn -> serve(listener, answer, test) end}
    pid = start_supervised!(Supervisor.child_spec(task, id: address))
    :ok = :gen_tcp.controlling_process(listener, pid)
    address
  end

  @doc """
  Starts one on `localhost` with a certificate that nobody knows, which gives a page for addresses that end in `/`, and a
  file for others. Returns its address and the certificates, as text, of those who vouch for it.
  """
  def start_tls(page, file) do
    {:ok, _} = Application.ensure_all_started(:ssl)
    name = {:Extension, {2, 5, 29, 17}, false, [dNSName: ~c"localhost"]}
    own = [digest: :sha256, key: {:namedCurve, :secp256r1}]
    chain = %{root: own, intermediates: [], peer: own ++ [extensions: [name]]}

    %{server_config: server, client_config: client} =
      :public_key.pkix_test_data(%{server_chain: chain, client_chain: chain})

    {:ok, listener} = :ssl.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}] ++ server)
    {:ok, {_, port}} = :ssl.sockname(listener)
    start_supervised!({Task, fn -> serve_tls(listener, page, file) end})
    certificates = for der <- client[:cacerts], do: {:Certificate, der, :not_encrypted}
    {"https://localhost:#{port}", :public_key.pem_encode(certificates)}
  end

  defp serve_tls(listener, page, file) do
    {:ok, socket} = :ssl.transport_accept(listener)

    with {:ok, socket} <- :ssl.handshake(socket),
         {:ok, request} <- :ssl.recv(socket, 0) do
      :ssl.send(socket, if(request =~ ~r"\AGET \S*/ ", do: page, else: file))
      :ssl.close(socket)
    end

    serve_tls(listener, page, file)
  end

  @doc "Ends the server of that address."
  def stop(address), do: stop_supervised!(address)

  defp serve(listener, answer, test) do
    {:ok, socket} = :gen_tcp.accept(listener)

    with {:ok, {:http_request, :GET, target, _}} <- :gen_tcp.recv(socket, 0) do
      path = path(target)
      headers = headers(socket)
      send(test, {:asked, path, headers})
      :gen_tcp.send(socket, answer.(path, headers))
    end

    :gen_tcp.close(socket)
    serve(listener, answer, test)
  end

  # A proxy is asked for all of an address.
  defp path({:abs_path, path}), do: path
  defp path({:absoluteURI, :http, host, _port, path}), do: "http://#{host}#{path}"

  defp headers(socket) do
    case :gen_tcp.recv(socket, 0) do
      {:ok, {:http_header, _, name, _, value}} ->
        socket |> headers() |> Map.put(name |> to_string() |> String.downcase(), value)

      {:ok, :http_eoh} ->
        %{}
    end
  end

  def ok(body), do: response("200 OK", [], body)
  def redirect(to), do: response("302 Found", ["Location: #{to}"], "elsewhere")

  def response(status, headers, body) do
    headers = ["Content-Length: #{byte_size(body)}", "Connection: close" | headers]
    "HTTP/1.1 #{status}\r\n" <> Enum.map_join(headers, &(&1 <> "\r\n")) <> "\r\n" <> body
  end
end
