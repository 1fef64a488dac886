# Sourced by the other scripts: the root of the checkout, the tools' folder, and how to say things.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/.tools
export PATH=$tools/bin:$PATH

# Incremental files only help a second build, and CI has none. Set for every script, so that they share what they build.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

# Lets clippy compile our crates, so that they are linted as they are built, and dependencies are not checked and then
# compiled. Cargo keeps what comes of it apart from what plain cargo builds: scripts that would share a build all call this.
build_by_clippy() {
  export RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings
}

say() { printf '\n== %s\n' "$*"; }
note() { printf '%s\n' "$*" >&2; }
fail() { note "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
