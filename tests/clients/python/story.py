"""The story of tests/clients/README.md, over gRPC."""

import json
import sys
import uuid

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2, status_pb2
from virtualstack.compute.v1 import (
    template_pb2,
    template_pb2_grpc,
    vm_pb2,
    vm_pb2_grpc,
)
from virtualstack.iam.v1 import api_key_pb2, api_key_pb2_grpc, auth_pb2, auth_pb2_grpc
from virtualstack.watch.v1 import watch_pb2, watch_pb2_grpc

TIMEOUT = 30  # seconds, for each call


def error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo that every error of VirtualStack carries."""
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details), f"no ErrorInfo: {status}"
    assert info.domain == "virtualstack" and info.reason, info
    return info


def refused(code: grpc.StatusCode, call, *args, **kwargs) -> str:
    """Makes a call that must fail with `code`; returns the reason."""
    try:
        call(*args, timeout=TIMEOUT, **kwargs)
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()} instead of {code}: {error.details()}"
        return error_info(error).reason
    raise AssertionError(f"not refused with {code}")


def main(ready_file: str) -> None:
    with open(ready_file) as file:
        ready = json.load(file)
    channel = grpc.insecure_channel(ready["grpc"].removeprefix("http://"))
    auth = auth_pb2_grpc.AuthServiceStub(channel)
    templates = template_pb2_grpc.TemplateServiceStub(channel)
    vms = vm_pb2_grpc.VmServiceStub(channel)
    operations = operations_pb2_grpc.OperationsStub(channel)
    api_keys = api_key_pb2_grpc.ApiKeyServiceStub(channel)
    watches = watch_pb2_grpc.WatchServiceStub(channel)

    login = auth_pb2.LoginRequest(
        email=ready["admin_email"],
        password=ready["admin_password"],
        tenant=ready["demo_tenant"],
    )
    wrong = auth_pb2.LoginRequest(email=ready["admin_email"], password="not the password")
    print("wrong password:", refused(grpc.StatusCode.UNAUTHENTICATED, auth.Login, wrong))

    tokens = auth.Login(login, timeout=TIMEOUT)
    metadata = [("authorization", f"Bearer {tokens.access_token}")]
    print("logged in:", tokens.tenant)

    def call(method, request):
        return method(request, metadata=metadata, timeout=TIMEOUT)

    def finish(operation: operations_pb2.Operation) -> vm_pb2.Vm:
        request = operations_pb2.WaitOperationRequest(name=operation.name)
        request.timeout.FromSeconds(10)
        for _ in range(6):
            if operation.done:
                break
            operation = call(operations.WaitOperation, request)
        assert operation.WhichOneof("result") == "response", operation
        vm = vm_pb2.Vm()
        assert operation.response.Unpack(vm), operation
        print("done:", operation.name, vm_pb2.Vm.State.Name(vm.state))
        return vm

    listed = call(templates.ListTemplates, template_pb2.ListTemplatesRequest(page_size=10))
    template = next(t for t in listed.templates if t.kind == template_pb2.Template.OVA)
    print("template:", template.display_name)

    spec = vm_pb2.Vm(display_name=f"python-{uuid.uuid4().hex[:8]}", template=template.name)
    request = vm_pb2.CreateVmRequest(vm=spec, request_id=str(uuid.uuid4()))
    created = call(vms.CreateVm, request)
    repeated = call(vms.CreateVm, request)
    assert created.name == repeated.name, "the same request gave another operation"

    vm = finish(created)
    assert vm.state == vm_pb2.Vm.RUNNING and vm.display_name == spec.display_name, vm
    assert call(vms.GetVm, vm_pb2.GetVmRequest(name=vm.name)).state == vm_pb2.Vm.RUNNING

    def watch(token: str = ""):
        return call(watches.WatchVms, watch_pb2.WatchVmsRequest(resume_token=token))

    def states(stream) -> list[int]:
        """What the VM goes through until it is stopped."""
        seen = []
        for message in stream:
            if message.vm.name == vm.name:
                seen.append(message.vm.state)
            if message.vm.name == vm.name and message.vm.state == vm_pb2.Vm.STOPPED:
                stream.cancel()
                return seen
        raise AssertionError("the stream ended by itself")

    stream = watch()
    for message in stream:
        if message.type == watch_pb2.WatchMessage.SYNCED:
            begun = message.resume_token
            break
        assert message.type == watch_pb2.WatchMessage.SNAPSHOT, message
    assert finish(call(vms.StopVm, vm_pb2.StopVmRequest(name=vm.name))).state == vm_pb2.Vm.STOPPED
    seen = states(stream)
    assert seen == [vm_pb2.Vm.STOPPING, vm_pb2.Vm.STOPPED], seen
    assert states(watch(begun)) == seen, "told otherwise after a cut"
    print("watched:", [vm_pb2.Vm.State.Name(state) for state in seen])

    wanted = api_key_pb2.ApiKey(display_name="python", permissions=["vm:read"])
    key = call(api_keys.CreateApiKey, api_key_pb2.CreateApiKeyRequest(api_key=wanted))
    by_key = {"metadata": [("x-api-key", key.secret)]}
    seen = vms.ListVms(vm_pb2.ListVmsRequest(), timeout=TIMEOUT, **by_key)
    assert vm.name in [each.name for each in seen.vms], "the key does not see the VM"
    more = template_pb2.ListTemplatesRequest()
    reason = refused(grpc.StatusCode.PERMISSION_DENIED, templates.ListTemplates, more, **by_key)
    assert reason == "KEY_RESTRICTED", reason
    call(api_keys.DeleteApiKey, api_key_pb2.DeleteApiKeyRequest(name=key.name))
    reason = refused(grpc.StatusCode.UNAUTHENTICATED, vms.ListVms, vm_pb2.ListVmsRequest(), **by_key)
    assert reason == "KEY_INVALID", reason
    print("key: listed vms, deleted:", reason)

    finish(call(vms.DeleteVm, vm_pb2.DeleteVmRequest(name=vm.name, force=True)))

    gone = vm_pb2.GetVmRequest(name=vm.name)
    print("gone:", refused(grpc.StatusCode.NOT_FOUND, vms.GetVm, gone, metadata=metadata))


if __name__ == "__main__":
    main(sys.argv[1])
