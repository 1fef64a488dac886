#!/usr/bin/env bash
# The story in Python over gRPC: python.sh READY_FILE
set -euo pipefail
. "$(dirname "$0")/../../scripts/env.sh"

generated=$tools/clients/python
"$root/tests/clients/python/generate.sh" "$generated"
PYTHONPATH=$generated "$tools/python/bin/python" "$root/tests/clients/python/story.py" "$1"
