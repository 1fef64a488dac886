#!/usr/bin/env bash
# The story in Python over gRPC: python.sh READY_FILE
set -euo pipefail
. "$(dirname "$0")/../../scripts/env.sh"

generated=$tools/clients/python
rm -rf "$generated"
mkdir -p "$generated"
# The imports are generated too: the packages on PyPI have google.longrunning under another file name.
(
  cd "$root/proto"
  find virtualstack -name '*.proto' >"$generated/files"
  (cd vendor && find . -name '*.proto' | cut -c 3-) >>"$generated/files"
  xargs "$tools/python/bin/python" -m grpc_tools.protoc -I. -Ivendor \
    --python_out="$generated" --grpc_python_out="$generated" <"$generated/files"
)
PYTHONPATH=$generated "$tools/python/bin/python" "$root/tests/clients/python/story.py" "$1"
