#!/usr/bin/env bash
# The story with grpcurl, which knows no proto and asks the server by reflection: grpcurl.sh READY_FILE
set -euo pipefail
. "$(dirname "$0")/../../scripts/env.sh"

# rpc METHOD REQUEST. The request goes through a pipe and the token through the environment, as other users of the
# machine can read command lines.
rpc() {
  local bearer=
  # shellcheck disable=SC2016 # grpcurl expands it
  [ -z "$token" ] || bearer='authorization: Bearer ${TOKEN}'
  TOKEN=$token grpcurl -plaintext -max-time 30 -format-error -expand-headers ${bearer:+-H "$bearer"} \
    -d @ "$address" "$1" <<<"$2" 2>&1
}

login() { rpc virtualstack.iam.v1.AuthService/Login "$1"; }
list_templates() { rpc virtualstack.compute.v1.TemplateService/ListTemplates '{"pageSize": 10}'; }
create_vm() { rpc virtualstack.compute.v1.VmService/CreateVm "{\"vm\": $2, \"requestId\": \"$1\"}"; }
get_vm() { rpc virtualstack.compute.v1.VmService/GetVm "{\"name\": \"$1\"}"; }
stop_vm() { rpc virtualstack.compute.v1.VmService/StopVm "{\"name\": \"$1\"}"; }
delete_vm() { rpc virtualstack.compute.v1.VmService/DeleteVm "{\"name\": \"$1\", \"force\": true}"; }
wait_operation() { rpc google.longrunning.Operations/WaitOperation "{\"name\": \"$1\", \"timeout\": \"10s\"}"; }

address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["grpc"].removeprefix("http://"))' "$1")
. "$(dirname "$0")/story.sh"
