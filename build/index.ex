defmodule Emily.Build.Index do
  @moduledoc false
  # The index of Python packages: which one it is, and where in it a file is. Pages are those of PEP 503, which every
  # index has; pip is asked only for the address of its own, where no other is configured.

  alias Emily.Build.{Command, Download, Failure}

  @accept "application/vnd.pypi.simple.v1+html, text/html;q=0.5"
  @names ~w(index-url index_url)

  @doc "The address of the file `name` of a package. Its page is kept in `folder` meanwhile."
  def find(package, name, folder) do
    page = Path.join(folder, "index.html")
    address = String.trim_trailing(address(), "/")
    from = Download.file("#{address}/#{package}/", page, accept: @accept)
    html = File.read!(page)
    File.rm!(page)

    Enum.find_value(links(html), fn link ->
      if file_name(link) == name, do: from |> Download.resolve(link) |> to_string()
    end) ||
      Failure.stop(
        "#{Download.shown(from)} has no #{name}.",
        "Set PIP_INDEX_URL to an index of Python packages that has it."
      )
  end

  defp links(html) do
    for [_, link] <- Regex.scan(~r/<a\s[^>]*href\s*=\s*["']([^"']+)["']/i, html),
        do: String.replace(link, "&amp;", "&")
  end

  defp file_name(link), do: (URI.parse(link).path || "") |> Path.basename() |> URI.decode()

  @doc "The index: `PIP_INDEX_URL`, else `index-url` of pip's configuration, else pip's own default."
  def address do
    address = env("PIP_INDEX_URL") || configured() || pips_own() || none()

    if URI.parse(address).scheme in ["http", "https"] do
      address
    else
      Failure.stop(
        "the index of Python packages is #{inspect(address)}.",
        "Set PIP_INDEX_URL to an address that begins with https:// or http://."
      )
    end
  end

  @spec none :: no_return()
  defp none do
    Failure.stop(
      "no index of Python packages is configured, to fetch MLX from, and pip, which knows one, is not there.",
      Failure.install("index")
    )
  end

  # What is more special comes last, and wins.
  defp configured do
    files = ["/etc/xdg/pip/pip.conf", "/etc/pip.conf"] ++ own_files() ++ [env("PIP_CONFIG_FILE")]

    for file <- files, file, {:ok, text} <- [File.read(file)], section <- ~w(global download) do
      setting(text, section)
    end
    |> Enum.reject(&is_nil/1)
    |> List.last()
  end

  defp own_files do
    home = env("HOME") || "/"
    configuration = env("XDG_CONFIG_HOME") || Path.join(home, ".config")

    for folder <- [
          Path.join(home, ".pip"),
          Path.join(home, "Library/Application Support/pip"),
          Path.join(configuration, "pip")
        ],
        do: Path.join(folder, "pip.conf")
  end

  defp setting(text, section) do
    lines = text |> String.split(["\r\n", "\n"]) |> Enum.map(&String.trim/1)

    lines
    |> Enum.drop_while(&(&1 != "[#{section}]"))
    |> Enum.drop(1)
    |> Enum.take_while(&(not String.starts_with?(&1, "[")))
    |> Enum.find_value(fn line ->
      case String.split(line, ["=", ":"], parts: 2) |> Enum.map(&String.trim/1) do
        [name, <<_, _::binary>> = value] when name in @names -> value
        _ -> nil
      end
    end)
  end

  # pip's help names the address that it would take.
  defp pips_own do
    Enum.find_value([{"python3", ["-m", "pip"]}, {"pip3", []}, {"pip", []}], fn {pip, arguments} ->
      arguments = arguments ++ ["download", "--help"]

      with {help, 0} <-
             Command.run(pip, arguments, env: [{"COLUMNS", "1000"}, {"NO_COLOR", "1"}]),
           [_, address] <- Regex.run(~r/--index-url <url>.*?\(default\s+([^\s)]+)\)/s, help) do
        address
      else
        _ -> nil
      end
    end)
  end

  defp env(name) do
    with "" <- System.get_env(name), do: nil
  end
end
