#!/usr/bin/env bash
# The story with curl over REST: curl.sh READY_FILE
set -euo pipefail
. "$(dirname "$0")/../../scripts/env.sh"

# rest METHOD PATH [BODY]. Body and token go through pipes, as other users of the machine can read command lines.
rest() {
  curl --silent --show-error --fail-with-body --max-time 30 --request "$1" "$address/v1/$2" \
    --header "Content-Type: application/json" ${token:+--header @<(printf 'Authorization: Bearer %s\n' "$token")} \
    ${3:+--data-binary @-} <<<"${3:-}"
}

login() { rest POST auth:login "$1"; }
list_templates() { rest GET 'templates?pageSize=10'; }
create_vm() { rest POST "vms?requestId=$1" "$2"; }
get_vm() { rest GET "$1"; }
stop_vm() { rest POST "$1:stop" '{}'; }
delete_vm() { rest DELETE "$1?force=true"; }
wait_operation() { rest POST "$1:wait" '{"timeout": "10s"}'; }

address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["http"])' "$1")
. "$(dirname "$0")/story.sh"
