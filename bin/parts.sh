# Sourced by bin/test and bin/test-arm64: parts, each with its result in one summary.

results=()
failed=0
passed=0

# part NAME COMMAND...: runs one part and keeps its result for the summary.
part() {
  local name=$1 start=$SECONDS status
  shift
  printf '\n=== %s\n' "$name"
  "$@" </dev/null
  status=$?
  if [ $status = 0 ]; then
    passed=$((passed + 1))
    results+=("ok      $name ($((SECONDS - start)) s)")
  else
    failed=$((failed + 1))
    results+=("FAILED  $name ($((SECONDS - start)) s)")
  fi
  return $status
}

left_out() {
  results+=("LEFT OUT  $1: $2")
  printf '\n=== LEFT OUT: %s\n    %s\n' "$1" "$2"
}

summary() {
  printf '\n=== Summary of %s (%s s)\n' "${0##*/}" "$SECONDS"
  printf '%s\n' "${results[@]}"
  echo "$passed passed, $failed failed"
  [ $failed = 0 ]
  exit
}
