# Sourced by the other scripts: the root of the checkout, the tools' folder, and how to say things.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/.tools
export PATH=$tools/bin:$PATH

# Incremental files only help a second build, and CI has none. Set for every script, so that they share what they build.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

say() { printf '\n== %s\n' "$*"; }
note() { printf '%s\n' "$*" >&2; }
fail() { note "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
