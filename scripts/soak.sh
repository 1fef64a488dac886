#!/usr/bin/env bash
# Runs the tests of VMs' random lives, quotas, replays and revocations for long: soak.sh [VARIABLE=VALUE…], e.g.
# VIRTUALSTACK_TEST_SEED=7 to repeat a run.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$root"

scripts/tools.sh test
cargo test --test it --no-run
exec env VIRTUALSTACK_TEST_VCSIM="$tools/bin/vcsim" VIRTUALSTACK_SOAK_SECONDS=600 VIRTUALSTACK_SOAK_VCENTER_SECONDS=180 \
  VIRTUALSTACK_TEST_ROUNDS=20 "$@" cargo test --test it -- vm_lives:: tenancy::two_servers --nocapture --test-threads 1
