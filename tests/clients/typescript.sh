#!/usr/bin/env bash
# The story in TypeScript over grpc-web: typescript.sh READY_FILE
set -euo pipefail
. "$(dirname "$0")/../../scripts/env.sh"

ready=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$root/tests/clients/typescript"
npm run --silent generate
npm run --silent build
node out/story.js "$ready"
