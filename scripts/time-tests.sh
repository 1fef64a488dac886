#!/usr/bin/env bash
# Runs a test program and keeps how long each of its tests took: time-tests.sh PROGRAM ARGS…, as cargo calls a runner.
# libtest tells the times only to whom RUSTC_BOOTSTRAP is set for. The program asks for it when it starts, so it is built
# as ever, by the stable compiler.
set -euo pipefail
RUSTC_BOOTSTRAP=1 "$@" -Z unstable-options --report-time | tee -a "$VIRTUALSTACK_TEST_TIMES"
