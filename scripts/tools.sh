#!/usr/bin/env bash
# Installs what is missing: tools.sh [run|up ARGS…|test|bench|clients|parts|demo|all]. Silent and quick when all is there.
#   run      Rust, a C linker, PostgreSQL server binaries
#   up       run; and it looks whether `virtualstack up ARGS` can have its data where it would, before minutes go by building it
#   test     run, and buf and the vCenter simulator
#   bench    run, and the Python packages of tests/clients
#   clients  run, and buf, grpcurl, the Python and the TypeScript packages of tests/clients
#   parts    Rust, a C linker, and an S3
#   demo     the vCenter simulator, govc and grpcurl, for trying things by hand
#   all      all of it, and the git hooks
# Everything goes into .tools, but for system packages: those are installed with apt-get where we may, and named otherwise.
set -euo pipefail
. "$(dirname "$0")/env.sh"

BUF=1.75.0
GRPCURL=v1.9.3
MAILPIT=v1.33.1
POSTGRES=15
VERSITYGW=v1.8.0

# apt_install PACKAGE…: false where we may not.
apt_install() {
  have apt-get || return 1
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || return 1
    as_root=(sudo -n)
  fi
  # One at a time: what one package sets up, the next may look at.
  "${as_root[@]}" apt-get update -qq || return 1
  local package
  for package in "$@"; do
    note "installing $package"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null \
      || return 1
    # Debian would start a cluster of its own, which nothing here uses.
    if [ "$package" = postgresql-common ]; then
      "${as_root[@]}" sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    fi
  done
}

# need COMMAND PACKAGE WHY
need() {
  have "$1" || apt_install "$2" || true
  have "$1" || fail "$1 is missing ($3). Install it, on Debian and Ubuntu with: apt-get install $2"
}

# The newest PostgreSQL that can make and start a cluster; nothing when there is none.
postgres_version() {
  local dir
  {
    for dir in "$(pg_config --bindir 2>/dev/null)" /usr/lib/postgresql/*/bin ${PATH//:/ }; do
      if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
        "$dir/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/'
      fi
    done
  } | sort -n | tail -n 1
}

install_postgres() {
  local version
  version=$(postgres_version)
  if [ -z "$version" ]; then
    apt_install postgresql-common postgresql || true
    version=$(postgres_version)
  fi
  [ "${version:-0}" -ge $POSTGRES ] || fail "PostgreSQL server binaries, $POSTGRES or newer, are needed (found: ${version:-none}).
Install them, on Debian and Ubuntu with: apt-get install postgresql; with Homebrew: brew install postgresql@17"
}

install_rust() {
  have cargo || fail "Rust is missing: install rustup (https://rustup.rs). It picks the version that rust-toolchain.toml names."
  # Asking for the version makes rustup install the toolchain and its components.
  (cd "$root" && cargo --version && cargo clippy --version && cargo fmt --version) >/dev/null
  need cc gcc "the linker of Rust programs"
}

install_buf() {
  [ "$(buf --version 2>/dev/null)" != "$BUF" ] || return 0
  note "installing buf $BUF"
  mkdir -p "$tools/bin"
  if python_tools "buf-bin==$BUF"; then
    ln -sf ../python/bin/buf "$tools/bin/buf"
  elif have npm && npm install --silent --no-save --prefix "$tools/npm" "@bufbuild/buf@$BUF"; then
    ln -sf ../npm/node_modules/.bin/buf "$tools/bin/buf"
  else
    fail "buf cannot be installed: it needs Python 3 with venv, or npm."
  fi
}

# python_tools ARGS of pip: installs into the environment .tools/python.
python_tools() {
  [ -x "$tools/python/bin/pip" ] || python3 -m venv "$tools/python" 2>/dev/null || {
    apt_install python3-venv && python3 -m venv --clear "$tools/python"
  } || return 1
  "$tools/python/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

need_go() {
  have go || fail "Go is missing ($1). Install it from https://go.dev/dl; a distribution's own may be too old for tests/vcsim/go.mod."
}

# simulator_tool NAME PACKAGE: builds a program of tests/vcsim again when a file there is newer.
simulator_tool() {
  local source=$root/tests/vcsim
  if [ -x "$tools/bin/$1" ] && [ -z "$(find "$source" -type f -newer "$tools/bin/$1")" ]; then
    return 0
  fi
  need_go "it builds the vCenter simulator"
  note "building $1"
  (cd "$source" && go build -o "$tools/bin/$1" "$2")
  # Even when the result is the same as before, so that it is not asked for again.
  touch "$tools/bin/$1"
}

# go_tool NAME PACKAGE VERSION: builds a program unless it is there in that version.
go_tool() {
  local built
  need_go "it builds $1"
  if built=$(go version -m "$tools/bin/$1" 2>/dev/null) && grep -q "[[:space:]]$3[[:space:]]" <<<"$built"; then
    return 0
  fi
  note "building $1 $3"
  GOBIN=$tools/bin go install "$2@$3"
}

install_grpcurl() {
  go_tool grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl "$GRPCURL"
}

install_mailpit() {
  need openssl openssl "it makes the certificates of the mail relay"
  go_tool mailpit github.com/axllent/mailpit "$MAILPIT"
}

install_python() {
  local python=$root/tests/clients/python
  need python3 python3 "it is one of the clients"
  if ! cmp -s "$python/requirements.txt" "$tools/python/requirements.txt"; then
    note "installing the Python client's packages"
    python_tools -r "$python/requirements.txt" || fail "the Python client's packages cannot be installed"
    cp "$python/requirements.txt" "$tools/python/requirements.txt"
  fi
}

install_clients() {
  local typescript=$root/tests/clients/typescript
  need curl curl "it is one of the clients"
  install_python
  have npm || fail "Node.js 20 or newer with npm is missing: it runs the TypeScript client. Install it from https://nodejs.org"
  if [ "$typescript/package-lock.json" -nt "$typescript/node_modules/.package-lock.json" ]; then
    note "installing the TypeScript client's packages"
    (cd "$typescript" && npm ci --silent)
  fi
}

install_hooks() {
  if git -C "$root" rev-parse --git-dir >/dev/null 2>&1 && ! git -C "$root" config core.hooksPath >/dev/null; then
    git -C "$root" config core.hooksPath .githooks
  fi
}

# data_folder ARGS…: where `up` would keep its data; nothing where it uses another PostgreSQL than its own.
data_folder() {
  local folder=${VIRTUALSTACK_DATA_DIR:-}
  if [ -z "$folder" ] && [ -f virtualstack.toml ]; then
    folder=$(sed -nE 's/^data_dir *= *"(.*)".*/\1/p' virtualstack.toml)
  fi
  [ -z "${VIRTUALSTACK_DATABASE_URL:-}" ] || return 0
  while [ $# -gt 0 ]; do
    case $1 in
      --database-url | --database-url=*) return 0 ;;
      --data-dir=*) folder=${1#*=} ;;
      --data-dir) folder=${2:-} ;;
    esac
    shift
  done
  printf '%s' "${folder:-.virtualstack}"
}

# PostgreSQL does not run as root: whoever it runs as then must be able to come where its data is.
check_data_folder() {
  local folder user
  if [ "$(id -u)" != 0 ] || ! have runuser; then
    return 0
  fi
  folder=$(data_folder "$@")
  [ -n "$folder" ] || return 0
  user=$(getent passwd postgres || getent passwd nobody || true)
  user=${user%%:*}
  [ -n "$user" ] || return 0
  while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
  folder=$(cd "$folder" && pwd)
  runuser -u "$user" -- test -x "$folder" || fail "PostgreSQL does not run as root, and its user $user cannot enter $folder.
Say another folder: make up ARGS=\"--data-dir /var/lib/virtualstack\"; or move the checkout, or let others through (chmod o+x)."
}

install() {
  case $1 in
    up) install run; check_data_folder "${@:2}" ;;
    run) install_rust; install_postgres ;;
    test) install run; install_buf; simulator_tool vcsim . ;;
    bench) install run; install_python ;;
    clients) install run; install_buf; install_grpcurl; install_clients; install_mailpit ;;
    parts) install_rust; go_tool versitygw github.com/versity/versitygw/cmd/versitygw "$VERSITYGW" ;;
    demo) simulator_tool vcsim .; simulator_tool govc ./govc; install_grpcurl ;;
    all) install test; install clients; install parts; install demo; install_hooks ;;
    *) fail "usage: tools.sh [run|up|test|bench|clients|parts|demo|all]" ;;
  esac
}

mkdir -p "$tools/bin"
install "${@:-all}"
