defmodule Emily.Build.Download do
  @moduledoc false
  # Files by HTTP, with OTP's own client: certificates are checked, and what breaks off goes on where it was.

  alias Emily.Build.{Failure, Record}

  @profile :emily_build
  @attempts 5
  @redirects 10
  @untrusted ~w(unknown_ca bad_certificate certificate_unknown certificate_expired certificate_revoked)a ++
               ~w(unsupported_certificate handshake_failure)a
  # Without a byte for so long, a connection is given up, in milliseconds.
  @patience 60_000
  # How often a line says how far it is, in milliseconds.
  @interval 20_000

  @remedy "Try again with a network; HTTPS_PROXY names a proxy, PIP_INDEX_URL another index of Python packages,\n" <>
            "PIP_CERT a file with other certificates than the system's."

  @doc """
  Downloads `url` to the file `path`. Returns the address that it came from in the end, after redirections.

  Names and passwords in an address go to that host alone. Options: `:accept`, the media types that are asked for, and
  `:remedy`, what to do where it cannot be had.
  """
  def file(url, path, options \\ []) do
    options = Keyword.validate!(options, accept: "*/*", remedy: @remedy)
    start()

    with {:error, uri, why} <- again(URI.parse(url), path, options[:accept], @attempts) do
      Failure.stop("could not download #{shown(uri)}: #{why}.", options[:remedy])
    end
  end

  @doc "Ends the build where a file is not the one with that SHA-256, as hexadecimal digits."
  def check(path, sha256, remedy) do
    found = sha256(path)

    if found != sha256 do
      Failure.stop(
        "the archive #{Path.basename(path)} is not the expected one.\n" <>
          "    expected SHA-256 #{sha256}\n    found    SHA-256 #{found}",
        remedy
      )
    end
  end

  @doc "A file's SHA-256, as hexadecimal digits."
  def sha256(path) do
    path |> Record.sha256() |> Base.encode16(case: :lower)
  end

  @doc "An address without a name and a password in it."
  def shown(%URI{} = uri), do: to_string(%{uri | userinfo: nil})
  def shown(url), do: url |> URI.parse() |> shown()

  @doc "The address that a reference means in what came from another; on the same host with its name and password."
  def resolve(%URI{} = from, reference) do
    uri = URI.merge(%{from | userinfo: nil}, reference)
    same? = {uri.scheme, uri.host, uri.port} == {from.scheme, from.host, from.port}
    if same? and uri.userinfo == nil, do: %{uri | userinfo: from.userinfo}, else: uri
  end

  defp again(uri, path, accept, attempts) do
    case get(uri, path, accept, @redirects) do
      {:ok, from} ->
        from

      {:again, why} when attempts > 1 ->
        Mix.shell().info("emily:   ... #{why}; #{megabytes(size(path))} MB are there, going on")
        Process.sleep(1000 * (@attempts - attempts))
        again(uri, path, accept, attempts - 1)

      {_, why} ->
        {:error, uri, why}
    end
  end

  defp get(_uri, _path, _accept, 0), do: {:stop, "it is redirected #{@redirects} times"}

  defp get(uri, path, accept, redirects) do
    offset = size(path)
    range = if offset > 0, do: [{~c"range", ~c"bytes=#{offset}-"}], else: []
    headers = [{~c"accept", to_charlist(accept)} | authorization(uri) ++ range]
    request = {uri |> shown() |> to_charlist(), headers}
    # A larger buffer makes fewer messages of the body, each of which is asked for.
    sockets = [socket_opts: [buffer: 16_384]]
    options = [sync: false, stream: {:self, :once}, body_format: :binary] ++ sockets

    case :httpc.request(:get, request, http_options(uri), options, @profile) do
      {:ok, id} ->
        case answer(id, path, offset) do
          :ok -> {:ok, uri}
          {:redirected, to} -> uri |> resolve(to) |> get(path, accept, redirects - 1)
          # What is there does not fit what is to follow.
          {:again, {:status, 416}} -> again_from_the_start(path)
          {kind, {:status, status}} -> {kind, "the server answers #{status}"}
          {kind, reason} -> {kind, explain(reason)}
        end

      {:error, reason} ->
        {kind(reason), explain(reason)}
    end
  end

  # Another time the certificate is the same.
  defp kind({:failed_connect, [_, {_, _, {:tls_alert, _}} | _]}), do: :stop
  defp kind(_reason), do: :again

  defp again_from_the_start(path) do
    File.rm(path)
    {:again, "the server cannot go on there"}
  end

  defp answer(id, path, offset) do
    receive do
      {:http, {^id, :stream_start, headers, from}} ->
        body(
          id,
          from,
          path,
          offset,
          Map.new(headers, fn {k, v} -> {to_string(k), to_string(v)} end)
        )

      {:http, {^id, {{_, status, _}, headers, _body}}} ->
        outcome(status, Map.new(headers, fn {k, v} -> {to_string(k), to_string(v)} end))

      {:http, {^id, {:error, reason}}} ->
        {kind(reason), reason}
    after
      @patience -> cancel(id)
    end
  end

  defp outcome(status, %{"location" => to}) when status in [301, 302, 303, 307, 308],
    do: {:redirected, to}

  # An empty body has no stream.
  defp outcome(status, _headers) when status in [200, 206], do: {:stop, "it is empty"}
  defp outcome(status, _headers) when status in [408, 416, 429], do: {:again, {:status, status}}
  defp outcome(status, _headers) when status >= 500, do: {:again, {:status, status}}
  defp outcome(status, _headers), do: {:stop, {:status, status}}

  # Some servers begin anew, whatever they were asked for.
  defp body(id, from, path, offset, headers) do
    at = if is_map_key(headers, "content-range"), do: offset, else: 0

    length =
      with text when is_binary(text) <- headers["content-length"], do: String.to_integer(text)

    File.open!(path, if(at > 0, do: [:append, :raw], else: [:write, :raw]), fn file ->
      chunks(id, from, file, %{at: at, all: length && at + length, told: now()})
    end)
  end

  defp chunks(id, from, file, progress) do
    :httpc.stream_next(from)

    receive do
      {:http, {^id, :stream, chunk}} ->
        write!(file, chunk)
        chunks(id, from, file, tell(%{progress | at: progress.at + byte_size(chunk)}))

      {:http, {^id, :stream_end, _headers}} ->
        if progress.all in [nil, progress.at], do: :ok, else: {:again, :closed}

      {:http, {^id, {:error, reason}}} ->
        {:again, reason}
    after
      @patience -> cancel(id)
    end
  end

  defp write!(file, chunk) do
    with {:error, reason} <- :file.write(file, chunk),
         do: raise(File.Error, reason: reason, action: "write", path: "the archive")
  end

  defp cancel(id) do
    :httpc.cancel_request(id, @profile)
    {:again, :timeout}
  end

  defp tell(%{at: at, all: all} = progress) do
    if now() - progress.told < @interval do
      progress
    else
      of = if all, do: " of #{megabytes(all)}", else: ""
      Mix.shell().info("emily:   ... #{megabytes(at)}#{of} MB")
      %{progress | told: now()}
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
  defp megabytes(bytes), do: div(bytes, 1_000_000)

  defp size(path) do
    case File.stat(path) do
      {:ok, %{size: size}} -> size
      {:error, _} -> 0
    end
  end

  defp authorization(%URI{userinfo: nil}), do: []

  defp authorization(%URI{userinfo: userinfo}),
    do: [{~c"authorization", ~c"Basic #{userinfo |> URI.decode() |> Base.encode64()}"}]

  ## The client

  defp start do
    for application <- [:inets, :ssl], do: Mix.ensure_application!(application)
    {:ok, _} = Application.ensure_all_started([:inets, :ssl])
    # A client keeps its proxies, which nothing takes from it.
    :inets.stop(:httpc, @profile)
    {:ok, _} = :inets.start(:httpc, profile: @profile)

    proxies =
      for {name, option} <- [{"HTTPS_PROXY", :https_proxy}, {"HTTP_PROXY", :proxy}],
          proxy = env(name),
          %URI{host: <<_, _::binary>> = host, port: port} = URI.parse(proxy),
          do: {option, {{to_charlist(host), port || 80}, no_proxy()}}

    :ok = :httpc.set_options(proxies, @profile)
  end

  defp no_proxy do
    for host <- String.split(env("NO_PROXY") || "", ",", trim: true) do
      host |> String.trim() |> String.replace(~r/^\./, "*.") |> to_charlist()
    end
  end

  defp http_options(uri) do
    tls = if uri.scheme == "https", do: [ssl: certificates()], else: []

    [autoredirect: false, connect_timeout: @patience, timeout: :infinity] ++
      tls ++ proxy_auth(uri)
  end

  defp proxy_auth(uri) do
    proxy = env(if uri.scheme == "https", do: "HTTPS_PROXY", else: "HTTP_PROXY")

    with text when is_binary(text) <- proxy,
         %URI{userinfo: info} when is_binary(info) <- URI.parse(text),
         [user, password] <- info |> URI.decode() |> String.split(":", parts: 2) do
      [proxy_auth: {to_charlist(user), to_charlist(password)}]
    else
      _ -> []
    end
  end

  defp certificates do
    own =
      if file = env("PIP_CERT"), do: [cacertfile: to_charlist(file)], else: [cacerts: system()]

    match = :public_key.pkix_verify_hostname_match_fun(:https)
    [verify: :verify_peer, depth: 10, customize_hostname_check: [match_fun: match]] ++ own
  end

  defp system do
    :public_key.cacerts_get()
  rescue
    _ ->
      Failure.stop(
        "the system has no certificates to check servers by.",
        "Install ca-certificates, or name a file with certificates in PIP_CERT."
      )
  end

  defp env(name) do
    Enum.find_value([name, String.downcase(name)], fn name ->
      with "" <- System.get_env(name), do: nil
    end)
  end

  defp explain(:timeout), do: "the server is silent"
  defp explain(:closed), do: "the connection was closed"
  defp explain(:socket_closed_remotely), do: explain(:closed)
  defp explain({:shutdown, :server_closed}), do: explain(:closed)
  defp explain({:failed_connect, [_, {_, _, reason} | _]}), do: explain(reason)
  defp explain(:nxdomain), do: "there is no host of that name"
  defp explain(:econnrefused), do: "the connection is refused"

  defp explain({:tls_alert, {alert, text}}) do
    what =
      if alert in @untrusted, do: "its certificate is not trusted", else: "no secure connection"

    "#{what} (#{text |> to_string() |> String.replace(~r/\s+/, " ") |> String.trim()})"
  end

  defp explain(text) when is_binary(text), do: text
  defp explain(other), do: inspect(other)
end
