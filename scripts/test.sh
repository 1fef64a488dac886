#!/usr/bin/env bash
# Installs what tests need, lints, and runs every test. Arguments go to cargo test: test.sh --test it vms
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$root"

export VIRTUALSTACK_TEST_VCSIM=$tools/bin/vcsim

times=()
phase() {
  local name=$1 start=$SECONDS
  shift
  "$@"
  times+=("$(printf '%5ds  %s' $((SECONDS - start)) "$name")")
}
report() {
  local status=$?
  say "time"
  [ ${#times[@]} = 0 ] || printf '%s\n' "${times[@]}"
  printf '%5ds  in all\n' "$SECONDS"
  [ $status = 0 ] || note "make test failed"
}
trap report EXIT

phase tools scripts/tools.sh test
phase lint scripts/lint.sh
phase "build tests" cargo test --workspace ${CI:+--locked} --no-run
phase tests cargo test --workspace ${CI:+--locked} "$@"
