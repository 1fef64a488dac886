#!/usr/bin/env bash
# Makes Python modules of the protos, and of those that they import: generate.sh FOLDER
set -euo pipefail
. "$(dirname "$0")/../../../scripts/env.sh"

out=$(realpath -m "$1")
rm -rf "$out"
mkdir -p "$out"
# The imports are generated too: the packages on PyPI have google.longrunning under another file name.
cd "$root/proto"
find virtualstack -name '*.proto' >"$out/files"
(cd vendor && find . -name '*.proto' | cut -c 3-) >>"$out/files"
xargs "$tools/python/bin/python" -m grpc_tools.protoc -I. -Ivendor --python_out="$out" --grpc_python_out="$out" <"$out/files"
