#!/usr/bin/env bash
# Every check that is not a test: lint.sh [--quick|--fix|--without-clippy]
#   --quick           only what takes seconds (the pre-commit hook)
#   --fix             formats instead of checking the format, and stops there
#   --without-clippy  for who builds by clippy next (build_by_clippy in env.sh)
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$root"

# Vendored protos keep the format they came with.
ours=(--path proto/virtualstack)

have buf || fail "buf is missing. Install it with: make tools"

if [ "${1:-}" = --fix ]; then
  cargo fmt --all
  buf format -w "${ours[@]}"
  exit
fi

say "format"
cargo fmt --all --check
buf format -d --exit-code "${ours[@]}"

say "protos"
buf lint
[ "${1:-}" != --quick ] || exit 0

say "breaking changes of the contract"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Against the last release, once there is one. Before that, against the commit below what stands here.
if [ -f proto/released.binpb ]; then
  before=proto/released.binpb
else
  commit=HEAD~1
  [ -z "$(git status --porcelain -- proto buf.yaml 2>/dev/null)" ] || commit=HEAD
  # Neither a first commit nor a shallow clone has one below it.
  if git rev-parse --quiet --verify "$commit:buf.yaml" >/dev/null 2>&1; then
    mkdir "$work/before"
    git archive "$commit" buf.yaml proto | tar -x -C "$work/before"
    before=$work/before.binpb
    buf build "$work/before" -o "$before"
  fi
fi
if [ -n "${before:-}" ]; then
  # Images, because buf cannot compare a workspace of two modules with one file. They are held to FILE, the strictest rules.
  buf build -o "$work/now.binpb"
  buf breaking "$work/now.binpb" --against "$before" --path virtualstack --exclude-imports
else
  note "skipped: there is nothing earlier to compare with"
fi

if [ "${1:-}" != --without-clippy ]; then
  say "clippy"
  # CI must check what was committed; while working, cargo may update Cargo.lock.
  cargo clippy --workspace --all-targets ${CI:+--locked} -- -D warnings
fi

# Not part of the tools: it takes minutes to build. Advisories are left out because they need the network
# and would fail a commit for what somebody else published; `cargo deny check advisories` asks for them.
if have cargo-deny; then
  say "licenses, bans and sources of dependencies"
  cargo deny --workspace check bans licenses sources
fi

# Optional, so held to what every version of them agrees on: a machine that has them must not find more than CI does.
if have shellcheck; then
  say "shell scripts"
  git ls-files -z --cached --others --exclude-standard '*.sh' .githooks .ci | xargs -0 shellcheck -x -P SCRIPTDIR -S warning
fi

if have ruff; then
  say "Python"
  ruff check --select E9,F tests
fi
