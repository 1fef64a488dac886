#!/usr/bin/env bash
# Measures the release binary: bench.sh [start] [calls], both by default.
#   start  its size, the time from start to ready, and its memory when idle. PostgreSQL is started before, as its own start
#          is not ours to measure; times are medians of RUNS starts, beside `virtualstack --version` in the same run as a
#          floor: what the machine takes to start the same binary at all.
#   calls  what calls cost in CPU time, beside PostgreSQL and Argon2id alone: tests/bench/calls.py. BEFORE names another release
#          binary, which is measured in turn with this one
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$root"

RUNS=${RUNS:-7}

[ $# -gt 0 ] || set -- start calls

scripts/tools.sh bench
say "build"
start=$SECONDS
cargo build --release --locked --bin virtualstack
cargo build --release --locked -p argon2id-bench -p select-bench
note "release build: $((SECONDS - start)) s (incremental if it was built before)"
binary=${CARGO_TARGET_DIR:-$root/target}/release/virtualstack

work=$(mktemp -d)
chmod 755 "$work"
keeper=
pids=()
clean() {
  for pid in "${pids[@]}" $keeper; do kill -TERM "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap clean EXIT

# up DATABASE_ARGS…: starts one, waits until it is ready, prints milliseconds.
up() {
  rm -f "$work/ready.json"
  local began now
  began=$(date +%s%N)
  "$binary" up --ready-file "$work/ready.json" --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0 "$@" \
    >"$work/log" 2>&1 &
  pid=$!
  pids+=("$pid")
  until [ -s "$work/ready.json" ]; do
    kill -0 "$pid" 2>/dev/null || { cat "$work/log" >&2; fail "it did not start"; }
    sleep 0.002
  done
  now=$(date +%s%N)
  took=$(((now - began) / 1000000))
}

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
rss() { awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$1/status"; }

measure_start() {
  # The first start makes cluster and schema; it goes on as the owner of the PostgreSQL that the measured ones use.
  up --data-dir "$work/data"
  keeper=$pid
  first=$took
  url="host=$work/data/run user=postgres dbname=virtualstack"

  times=()
  memory=()
  for _ in $(seq "$RUNS"); do
    VIRTUALSTACK_MASTER_KEY_FILE=$work/data/master.key up --data-dir "$work/other" --database-url "$url"
    times+=("$took")
    sleep 3
    memory+=("$(rss "$pid")")
    kill -TERM "$pid"
    wait "$pid" || true
  done
  kill -TERM "$keeper"
  wait "$keeper" || true
  keeper=
  floor=()
  for _ in $(seq "$RUNS"); do
    began=$(date +%s%N)
    "$binary" --version >/dev/null
    floor+=($((($(date +%s%N) - began) / 1000)))
  done

  say "start"
  printf 'binary size               %6d KiB\n' $(($(stat -c %s "$binary" 2>/dev/null || stat -f %z "$binary") / 1024))
  printf 'first start, initdb too   %6d ms\n' "$first"
  printf 'start to ready            %6d ms   (median of %d; PostgreSQL running, schema current)\n' "$(printf '%s\n' "${times[@]}" | median)" "$RUNS"
  printf 'floor: --version          %6d us\n' "$(printf '%s\n' "${floor[@]}" | median)"
  printf 'idle memory (RSS)         %6d MiB  (median, 3 s after ready, all roles; PostgreSQL apart)\n' "$(printf '%s\n' "${memory[@]}" | median)"
}

measure_calls() {
  say "calls"
  tests/clients/python/generate.sh "$tools/clients/python"
  PYTHONPATH=tests/chaos:$tools/clients/python "$tools/python/bin/python" tests/bench/calls.py ${BEFORE:+--before "$BEFORE"}
}

for what in "$@"; do
  case $what in
    start | calls) "measure_$what" ;;
    *) fail "usage: bench.sh [start] [calls]" ;;
  esac
done
