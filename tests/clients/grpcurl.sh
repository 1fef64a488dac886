#!/usr/bin/env bash
# The story with grpcurl, which knows no proto and asks the server by reflection: grpcurl.sh READY_FILE
set -euo pipefail
. "$(dirname "$0")/../../scripts/env.sh"

# rpc METHOD REQUEST. The request goes through a pipe and the credential through the environment, as other users of the
# machine can read command lines.
rpc() {
  local credential=
  # shellcheck disable=SC2016 # grpcurl expands it
  [ -z "$token" ] || credential='authorization: Bearer ${TOKEN}'
  # shellcheck disable=SC2016
  [ -z "${key:-}" ] || credential='x-api-key: ${KEY}'
  TOKEN=$token KEY=${key:-} grpcurl -plaintext -max-time 30 -format-error -expand-headers ${credential:+-H "$credential"} \
    -d @ "$address" "$1" <<<"$2" 2>&1
}

login() { rpc virtualstack.iam.v1.AuthService/Login "$1"; }
list_templates() { rpc virtualstack.compute.v1.TemplateService/ListTemplates '{"pageSize": 10}'; }
create_vm() { rpc virtualstack.compute.v1.VmService/CreateVm "{\"vm\": $2, \"requestId\": \"$1\"}"; }
get_vm() { rpc virtualstack.compute.v1.VmService/GetVm "{\"name\": \"$1\"}"; }
stop_vm() { rpc virtualstack.compute.v1.VmService/StopVm "{\"name\": \"$1\"}"; }
delete_vm() { rpc virtualstack.compute.v1.VmService/DeleteVm "{\"name\": \"$1\", \"force\": true}"; }
list_vms() { rpc virtualstack.compute.v1.VmService/ListVms '{}'; }
create_key() { rpc virtualstack.iam.v1.ApiKeyService/CreateApiKey "{\"apiKey\": $1}"; }
delete_key() { rpc virtualstack.iam.v1.ApiKeyService/DeleteApiKey "{\"name\": \"$1\"}"; }
wait_operation() { rpc google.longrunning.Operations/WaitOperation "{\"name\": \"$1\", \"timeout\": \"10s\"}"; }

address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["grpc"].removeprefix("http://"))' "$1")
. "$(dirname "$0")/story.sh"
