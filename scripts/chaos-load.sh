#!/usr/bin/env bash
# Attacks the release binary and measures what another tenant sees: chaos-load.sh [--only NAME] [--seconds S]; BEFORE names another
# release binary, which is attacked first. See tests/chaos/load.py.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$root"

scripts/tools.sh bench
cargo build --release --locked --bin virtualstack
cargo build --release --locked -p sink-bench
ulimit -n "$(ulimit -Hn)"
PYTHONPATH=tests/chaos "$tools/python/bin/python" tests/chaos/load.py ${BEFORE:+--before "$BEFORE"} "$@"
