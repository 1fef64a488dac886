#!/usr/bin/env bash
# Starts the product and lets clients that share no code with it tell the same story (tests/clients/README.md).
# test-clients.sh [python] [typescript] [grpcurl] [curl] [mail]; all of them by default. The last one has a product and a story of its own.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$root"

[ $# -gt 0 ] || set -- python typescript grpcurl curl mail

scripts/tools.sh clients

say "build"
# What `make test` builds: cargo build leaves the features of dev-dependencies out, and would compile a third of it again.
build_by_clippy
cargo test --workspace ${CI:+--locked} --no-run

work=$(mktemp -d)
# The product drops root before it makes its data.
chmod 755 "$work"
server=
stop() {
  local status=$?
  if [ -n "$server" ]; then
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" || true
  fi
  rm -rf "$work"
  exit $status
}
trap stop EXIT

say "start"
"${CARGO_TARGET_DIR:-target}/debug/virtualstack" up --data-dir "$work/data" --ready-file "$work/ready.json" \
  --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0 >"$work/log" 2>&1 &
server=$!
deadline=$((SECONDS + 60))
until [ -s "$work/ready.json" ]; do
  if [ $SECONDS -ge $deadline ] || ! kill -0 "$server" 2>/dev/null; then
    cat "$work/log" >&2
    fail "the product did not get ready within 60 s"
  fi
  sleep 0.1
done

passed=0 failed=0
for story in "$@"; do
  say "$story"
  if "tests/clients/$story.sh" "$work/ready.json"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    note "$story failed"
  fi
done

say "stop"
kill -TERM "$server"
if wait "$server"; then
  passed=$((passed + 1))
else
  failed=$((failed + 1))
  note "the product did not drain and end with 0"
fi
server=

[ $failed = 0 ] || tail -n 50 "$work/log" >&2
printf '\n%d passed, %d failed\n' $passed $failed
[ $failed = 0 ]
