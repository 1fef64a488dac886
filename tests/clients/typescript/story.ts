// The story of tests/clients/README.md over grpc-web, with the transport that browsers use.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { type Operation, Operations } from "./generated/google/longrunning/operations_pb.js";
import { ErrorInfoSchema } from "./generated/google/rpc/error_details_pb.js";
import { Template_Kind, TemplateService } from "./generated/virtualstack/compute/v1/template_pb.js";
import { type Vm, Vm_State, VmSchema, VmService } from "./generated/virtualstack/compute/v1/vm_pb.js";
import { ApiKeyService } from "./generated/virtualstack/iam/v1/api_key_pb.js";
import { AuthService } from "./generated/virtualstack/iam/v1/auth_pb.js";
import { WatchMessage_Type, WatchService } from "./generated/virtualstack/watch/v1/watch_pb.js";

interface Ready {
  grpc: string;
  admin_email: string;
  admin_password: string;
  demo_tenant: string;
}

function check(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

/** Awaits a call that must fail with `code`; returns the reason that every error of VirtualStack carries. */
async function refused(code: Code, call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => ConnectError.from(reason),
  );
  check(error, `not refused with ${Code[code]}`);
  check(error.code === code, `${error} instead of ${Code[code]}`);
  const info = error.findDetails(ErrorInfoSchema)[0];
  check(info?.domain === "virtualstack" && info.reason !== "", `no ErrorInfo: ${error}`);
  return info.reason;
}

async function main(readyFile: string): Promise<void> {
  const ready = JSON.parse(readFileSync(readyFile, "utf8")) as Ready;

  let accessToken = "";
  const bearer: Interceptor = (next) => (request) => {
    if (accessToken) request.header.set("authorization", `Bearer ${accessToken}`);
    return next(request);
  };
  const options = { baseUrl: ready.grpc, defaultTimeoutMs: 30_000 };
  const transport = createGrpcWebTransport({ ...options, interceptors: [bearer] });
  const auth = createClient(AuthService, transport);
  const templates = createClient(TemplateService, transport);
  const vms = createClient(VmService, transport);
  const operations = createClient(Operations, transport);
  const apiKeys = createClient(ApiKeyService, transport);
  const watches = createClient(WatchService, transport);

  const email = ready.admin_email;
  const wrong = auth.login({ email, password: "not the password" });
  console.log("wrong password:", await refused(Code.Unauthenticated, wrong));

  const tokens = await auth.login({ email, password: ready.admin_password, tenant: ready.demo_tenant });
  accessToken = tokens.accessToken;
  console.log("logged in:", tokens.tenant);

  async function finish(operation: Operation): Promise<Vm> {
    for (let round = 0; round < 6 && !operation.done; round++) {
      operation = await operations.waitOperation({ name: operation.name, timeout: { seconds: 10n } });
    }
    check(operation.result.case === "response", `${operation.name}: ${JSON.stringify(operation.result.value)}`);
    const vm = anyUnpack(operation.result.value, VmSchema);
    check(vm, `${operation.name}: the response is no Vm`);
    console.log("done:", operation.name, Vm_State[vm.state]);
    return vm;
  }

  const listed = await templates.listTemplates({ pageSize: 10 });
  const template = listed.templates.find((each) => each.kind === Template_Kind.OVA);
  check(template, "no OVA template");
  console.log("template:", template.displayName);

  const request = {
    vm: { displayName: `typescript-${randomUUID().slice(0, 8)}`, template: template.name },
    requestId: randomUUID(),
  };
  const created = await vms.createVm(request);
  const repeated = await vms.createVm(request);
  check(created.name === repeated.name, "the same request gave another operation");

  const vm = await finish(created);
  check(vm.state === Vm_State.RUNNING && vm.displayName === request.vm.displayName, `made ${vm.name}`);
  const { name } = vm;
  check((await vms.getVm({ name })).state === Vm_State.RUNNING, "not RUNNING");

  // What the VM goes through until it is stopped, which `synced` is told to begin.
  async function watch(resumeToken: string, synced: (token: string) => void): Promise<string[]> {
    const seen: string[] = [];
    const leave = new AbortController();
    for await (const message of watches.watchVms({ resumeToken }, { signal: leave.signal })) {
      if (message.type === WatchMessage_Type.SYNCED) synced(message.resumeToken);
      if (message.type !== WatchMessage_Type.UPDATED || message.resource.case !== "vm") continue;
      if (message.resource.value.name !== name) continue;
      seen.push(Vm_State[message.resource.value.state]);
      if (message.resource.value.state === Vm_State.STOPPED) break;
    }
    leave.abort();
    return seen;
  }
  let watching: Promise<string[]> | undefined;
  const begun = await new Promise<string>((synced, failed) => {
    watching = watch("", synced);
    watching.catch(failed);
  });
  check((await finish(await vms.stopVm({ name }))).state === Vm_State.STOPPED, "not STOPPED");
  const watched = await watching;
  check(watched?.join() === "STOPPING,STOPPED", `watched ${watched}`);
  check((await watch(begun, () => {})).join() === watched.join(), "told otherwise after a cut");
  console.log("watched:", watched);

  const key = await apiKeys.createApiKey({ apiKey: { displayName: "typescript", permissions: ["vm:read"] } });
  const byKey = { headers: { "x-api-key": key.secret } };
  const keyed = createGrpcWebTransport(options);
  const seen = await createClient(VmService, keyed).listVms({}, byKey);
  check(seen.vms.some((each) => each.name === name), "the key does not see the VM");
  const restricted = createClient(TemplateService, keyed).listTemplates({}, byKey);
  check((await refused(Code.PermissionDenied, restricted)) === "KEY_RESTRICTED", "not KEY_RESTRICTED");
  await apiKeys.deleteApiKey({ name: key.name });
  const ended = await refused(Code.Unauthenticated, createClient(VmService, keyed).listVms({}, byKey));
  check(ended === "KEY_INVALID", `${ended}, not KEY_INVALID`);
  console.log("key: listed vms, deleted:", ended);

  await finish(await vms.deleteVm({ name, force: true }));
  console.log("gone:", await refused(Code.NotFound, vms.getVm({ name })));
}

const readyFile = process.argv[2];
check(readyFile, "usage: story.js READY_FILE");
await main(readyFile);
