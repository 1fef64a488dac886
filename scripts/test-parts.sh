#!/usr/bin/env bash
# Runs the tests of parts that have another program to work with than `make test` has: the storage of files with a real S3.
# Arguments go to cargo test: test-parts.sh s3::
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$root"

scripts/tools.sh parts
build_by_clippy

say "the storage of files, in a folder and in versitygw"
VIRTUALSTACK_TEST_S3=$tools/bin/versitygw cargo test ${CI:+--locked} -p virtualstack-objects --test conformance "$@"
