#!/usr/bin/env bash
# The story with curl over REST: curl.sh READY_FILE
set -euo pipefail
. "$(dirname "$0")/../../scripts/env.sh"

# rest METHOD PATH [BODY]. Body and credential go through pipes, as other users of the machine can read command lines.
rest() {
  local credential=${token:+Authorization: Bearer $token}
  [ -z "${key:-}" ] || credential="X-API-Key: $key"
  curl --silent --show-error --fail-with-body --max-time 30 --request "$1" "$address/v1/$2" \
    --header "Content-Type: application/json" ${credential:+--header @<(printf '%s\n' "$credential")} \
    ${3:+--data-binary @-} <<<"${3:-}"
}

# What a watch tells within two seconds, as server-sent events; $1 is the id of the last one that was seen.
watch_vms() {
  local told status=0
  told=$(curl --silent --no-buffer --max-time 2 "$address/v1/vms:watch" --header "Accept: text/event-stream" \
    --header @<(printf 'Authorization: Bearer %s\n' "$token") ${1:+--header "Last-Event-ID: $1"}) || status=$?
  sed -n 's/^data: //p' <<<"$told"
  [ $status = 28 ] # the two seconds were over; the stream was not
}

login() { rest POST auth:login "$1"; }
list_templates() { rest GET 'templates?pageSize=10'; }
create_vm() { rest POST "vms?requestId=$1" "$2"; }
get_vm() { rest GET "$1"; }
stop_vm() { rest POST "$1:stop" '{}'; }
delete_vm() { rest DELETE "$1?force=true"; }
list_vms() { rest GET vms; }
create_key() { rest POST apiKeys "$1"; }
delete_key() { rest DELETE "$1"; }
wait_operation() { rest POST "$1:wait" '{"timeout": "10s"}'; }

address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["http"])' "$1")
. "$(dirname "$0")/story.sh"
