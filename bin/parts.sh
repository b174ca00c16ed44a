# Sourced by bin/test and bin/test-arm64: parts, each with its result in one summary.

results=()
failed=0
passed=0
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# part NAME COMMAND...: runs one part and keeps its result for the summary.
part() {
  local name=$1 start=$SECONDS status
  shift
  printf '\n=== %s\n' "$name"
  "$@" </dev/null 2>&1 | tee "$logs/part"
  status=${PIPESTATUS[0]}
  if [ $status = 0 ]; then
    passed=$((passed + 1))
    results+=("ok      $name ($((SECONDS - start)) s)")
  else
    failed=$((failed + 1))
    results+=("FAILED  $name ($((SECONDS - start)) s)")
    { printf '\n=== Failed: %s\n' "$name" && failures "$logs/part"; } >>"$logs/failures"
  fi
  return $status
}

# What a part printed of its failed tests, else its end. ExUnit tells of a failure when it happens, far above the end;
# it ends where a line does not begin with a space.
failures() {
  local found
  found=$(awk '
    /^ +[0-9]+\) (test|property|doctest) / { end = "^[^ ]"; telling = 1 }
    /^---- .* stdout ----/ { end = "^failures:"; telling = 1 }
    telling && $0 ~ end { telling = 0 }
    telling' "$1" | head -n 200)
  if [ -n "$found" ]; then printf '%s\n' "$found"; else tail -n 40 "$1"; fi
}

left_out() {
  results+=("LEFT OUT  $1: $2")
  printf '\n=== LEFT OUT: %s\n    %s\n' "$1" "$2"
}

# Failures stand after the long output and before the results: whoever sees the end alone sees both.
summary() {
  [ ! -s "$logs/failures" ] || cat "$logs/failures"
  printf '\n=== Summary of %s (%s s)\n' "${0##*/}" "$SECONDS"
  printf '%s\n' "${results[@]}"
  echo "$passed passed, $failed failed"
  [ $failed = 0 ]
  exit
}
