#!/usr/bin/env bash
# Installs what tests need, lints, and runs every test; how long the phases and the slowest tests took is said last.
# Arguments go to cargo test: test.sh --test it vms
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$root"

export VIRTUALSTACK_TEST_VCSIM=$tools/bin/vcsim
# Most tests wait most of the time, so there may be more of them than processors.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-8}

times=()
phase() {
  local name=$1 start=$SECONDS
  shift
  "$@"
  times+=("$(printf '%5ds  %s' $((SECONDS - start)) "$name")")
}
# What scripts/time-tests.sh has seen of every test program.
VIRTUALSTACK_TEST_TIMES=$(mktemp)
export VIRTUALSTACK_TEST_TIMES
report() {
  local status=$?
  say "the slowest tests"
  sed -nE 's/^test (.+) \.\.\. .*<([0-9.]+)s>$/\2s  \1/p' "$VIRTUALSTACK_TEST_TIMES" | sort -rn | sed -n 1,20p
  say "time"
  [ ${#times[@]} = 0 ] || printf '%s\n' "${times[@]}"
  printf '%5ds  in all\n' "$SECONDS"
  printf '%6d tests passed\n' "$(grep -c '^test .* \.\.\. ok' "$VIRTUALSTACK_TEST_TIMES")"
  rm "$VIRTUALSTACK_TEST_TIMES"
  [ $status = 0 ] || note "make test failed"
}
trap report EXIT

phase tools scripts/tools.sh test
phase lint scripts/lint.sh --without-clippy
phase "the stand-in for Freshservice" python3 tests/freshservice/test_desk.py
build_by_clippy
phase "clippy and build" cargo test --workspace ${CI:+--locked} --no-run
phase tests cargo test --workspace ${CI:+--locked} --config "target.'cfg(all())'.runner='$root/scripts/time-tests.sh'" "$@"
