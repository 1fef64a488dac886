# The story of README.md for clients that speak JSON. Sourced with the ready file as $1, after the client has defined
# these, each of which prints the reply, or fails and prints the error as JSON, on standard output both:
#   login BODY · list_templates · list_vms · create_vm REQUEST_ID VM · get_vm NAME · stop_vm NAME · delete_vm NAME
#   wait_operation NAME · create_key KEY · delete_key NAME
# and may define watch_vms TOKEN, which prints what a watch tells for a while, a message a line.
# Once it is known, $token is the access token. Where $key is an API key, it is the credential instead.
# shellcheck shell=bash disable=SC2034

# json KEY…: the value below these keys, empty when it is not there.
json() {
  python3 -c '
import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1:]:
    value = value.get(key, "")
print(value if isinstance(value, str) else json.dumps(value))' "$@"
}

# ok CALL…: the reply of a call that must succeed.
ok() {
  local answer
  answer=$("$@") || fail "$1: $answer"
  printf '%s\n' "$answer"
}

# refused STATUS CALL…: a call that must fail so; prints the reason that every error of VirtualStack carries.
refused() {
  local status=$1 answer
  shift
  if answer=$("$@" 2>/dev/null); then
    fail "$1 was not refused: $answer"
  fi
  python3 -c '
import json, sys
error = json.loads(sys.argv[2])
error = error.get("error", error)  # REST wraps it; gRPC has numbers only
status = {5: "NOT_FOUND", 7: "PERMISSION_DENIED", 16: "UNAUTHENTICATED"}.get(error["code"], error.get("status"))
info = next(d for d in error["details"] if d["@type"].endswith("/google.rpc.ErrorInfo"))
assert status == sys.argv[1] and info["domain"] == "virtualstack", error
print(info["reason"])' "$status" "$answer" || fail "$1: $answer"
}

# finish OPERATION: waits until it is done; prints the response.
finish() {
  local operation=$1 name
  name=$(json name <<<"$operation")
  for _ in 1 2 3 4 5 6; do
    [ "$(json "done" <<<"$operation")" != true ] || break
    operation=$(ok wait_operation "$name")
  done
  note "done: $name $(json response state <<<"$operation")"
  json response <<<"$operation"
}

expect() { [ "$1" = "$2" ] || fail "expected $2, not $1"; }

email=$(json admin_email <"$1")
password=$(json admin_password <"$1")
tenant=$(json demo_tenant <"$1")
token=
key=

reason=$(refused UNAUTHENTICATED login "{\"email\": \"$email\", \"password\": \"not the password\"}")
echo "wrong password: $reason"

tokens=$(ok login "{\"email\": \"$email\", \"password\": \"$password\", \"tenant\": \"$tenant\"}")
token=$(json accessToken <<<"$tokens")
echo "logged in"

templates=$(ok list_templates)
template=$(python3 -c '
import json, sys
print(next(t["name"] for t in json.load(sys.stdin)["templates"] if t["kind"] == "OVA"))' <<<"$templates")
echo "template: $template"

request=$(python3 -c 'import uuid; print(uuid.uuid4())')
vm="{\"displayName\": \"shell-${request%%-*}\", \"template\": \"$template\"}"
created=$(ok create_vm "$request" "$vm")
repeated=$(ok create_vm "$request" "$vm")
expect "$(json name <<<"$repeated")" "$(json name <<<"$created")"

vm=$(finish "$created")
expect "$(json state <<<"$vm")" RUNNING
name=$(json name <<<"$vm")
vm=$(ok get_vm "$name")
expect "$(json state <<<"$vm")" RUNNING
if declare -F watch_vms >/dev/null; then
  begun=$(ok watch_vms | python3 -c '
import json, sys
messages = list(map(json.loads, sys.stdin))
synced = [each["type"] for each in messages].index("SYNCED")
states = {each["vm"]["name"]: each["vm"]["state"] for each in messages[:synced]}
assert states[sys.argv[1]] == "RUNNING", states
print(messages[synced]["resumeToken"])' "$name")
fi
stopped=$(ok stop_vm "$name")
vm=$(finish "$stopped")
expect "$(json state <<<"$vm")" STOPPED
if declare -F watch_vms >/dev/null; then
  states=$(ok watch_vms "$begun" | python3 -c '
import json, sys
messages = map(json.loads, sys.stdin)
print(",".join(each["vm"]["state"] for each in messages if each.get("vm", {}).get("name") == sys.argv[1]))' "$name")
  expect "$states" STOPPING,STOPPED
  echo "watched: $states"
fi

created=$(ok create_key '{"displayName": "shell", "permissions": ["vm:read"]}')
key=$(json secret <<<"$created")
vms=$(ok list_vms)
python3 -c '
import json, sys
assert sys.argv[1] in [vm["name"] for vm in json.load(sys.stdin)["vms"]], "not listed"' "$name" <<<"$vms"
reason=$(refused PERMISSION_DENIED list_templates)
expect "$reason" KEY_RESTRICTED
secret=$key key=
ok delete_key "$(json name <<<"$created")" >/dev/null
key=$secret
reason=$(refused UNAUTHENTICATED list_vms)
expect "$reason" KEY_INVALID
key=
echo "key: listed ${name%/*}, deleted: $reason"

deleted=$(ok delete_vm "$name")
finish "$deleted" >/dev/null

reason=$(refused NOT_FOUND get_vm "$name")
echo "gone: $reason"
