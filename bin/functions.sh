# Sourced by bin/test and bin/demo.

# The BEAM reads arguments and writes text in the encoding of the locale.
case "${LC_ALL:-${LC_CTYPE:-${LANG:-}}}" in
  *[Uu][Tt][Ff]*) ;;
  *) export LC_ALL=C.UTF-8 ;;
esac

# Runs a command with a limit in seconds, where the machine has `timeout`.
limited() {
  local seconds=$1
  shift
  if command -v timeout >/dev/null 2>&1; then timeout "$seconds" "$@"; else "$@"; fi
}

# Decides where Nx and the other Elixir packages come from: EMILY_CHECKOUTS, Hex, or nowhere.
# In the last case it exports EMILY_NO_NX=1 and says why in `why_no_nx`.
why_no_nx=
choose_dependencies() {
  if [ -n "${EMILY_NO_NX:-}" ]; then
    why_no_nx="EMILY_NO_NX is set"
  elif [ -n "${EMILY_CHECKOUTS:-}" ]; then
    [ -d "$EMILY_CHECKOUTS/nx" ] || { echo "EMILY_CHECKOUTS: there is no $EMILY_CHECKOUTS/nx" >&2; return 1; }
    export EMILY_CHECKOUTS
    install_hex_from_checkouts || return 1
    echo "packages: from the checkouts in $EMILY_CHECKOUTS"
  elif mix deps.loadpaths --no-compile </dev/null >/dev/null 2>&1; then
    echo "packages: already fetched"
  elif ! reach_hex; then
    why_no_nx="Hex, where Nx and the other Elixir packages are, cannot be reached, and EMILY_CHECKOUTS names no checkouts of them"
    export EMILY_NO_NX=1
  else
    echo "packages: from Hex"
    mix local.rebar --force --if-missing </dev/null && mix deps.get </dev/null || return 1
  fi
}

reach_hex() {
  { mix help hex.info >/dev/null 2>&1 || limited 60 mix local.hex --force </dev/null >/dev/null 2>&1; } &&
    HEX_HTTP_TIMEOUT=15 limited 60 mix hex.info nx </dev/null >/dev/null 2>&1
}

# Mix reads the packages' own mix.exs files with Hex, even when all of them come from a folder.
install_hex_from_checkouts() {
  mix help hex.info >/dev/null 2>&1 && return 0
  [ -d "$EMILY_CHECKOUTS/hex" ] || { limited 60 mix local.hex --force </dev/null; return; }
  local archive
  archive=$(mktemp -d)/hex.ez
  echo "packages: building Hex from its checkout"
  (cd "$EMILY_CHECKOUTS/hex" && env -u MIX_BUILD_PATH MIX_ENV=prod MIX_BUILD_ROOT="$(dirname "$archive")" mix archive.build -o "$archive" >/dev/null) &&
    mix archive.install --force "$archive" </dev/null
}
