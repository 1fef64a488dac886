#!/usr/bin/env python3
"""What an upload costs: peak memory of each role, and CPU time per GiB beside `sha256sum` and a plain file server.

Server, gateway and worker run apart, on a database of their own in the PostgreSQL of an `up`. The file is an OVA of random bytes,
which is uploaded by `curl -T` and imported by the simulated hypervisor. Floors, in the same run: `sha256sum` of the file, and the
same `curl -T` to a server that only writes what comes.
"""

import argparse
import contextlib
import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

import product
from product import EMAIL, PASSWORD, Product, say, workspace

DESCRIPTOR = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References><File ovf:href="disk.vmdk" ovf:id="file1" ovf:size="{size}"/></References>
  <DiskSection><Info>Disks</Info><Disk ovf:capacity="{capacity}" ovf:diskId="vmdisk1" ovf:fileRef="file1"
    ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
  <VirtualSystem ovf:id="bench"><Info>A VM</Info><Name>bench</Name>
    <OperatingSystemSection ovf:id="101" vmw:osType="otherLinux64Guest"><Info>Guest</Info></OperatingSystemSection>
    <VirtualHardwareSection><Info>Hardware</Info>
      <System><vssd:ElementName>Hardware</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>bench</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType></System>
      <Item><rasd:ElementName>1 CPU</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>1024 MiB</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>lsilogic</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>Disk</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""

FILE_SERVER = """
import http.server, sys
class Take(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_PUT(self):
        if self.headers.get("expect"): self.send_response_only(100); self.end_headers()
        left = int(self.headers["content-length"])
        with open(sys.argv[2], "wb") as file:
            while left:
                data = self.rfile.read(min(left, 1 << 20)); left -= len(data); file.write(data)
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Take).serve_forever()
"""


def make_ova(folder, mib):
    """An OVA of so many MiB that cannot be compressed; its SHA-256."""
    raw, disk, ova = folder / "disk.raw", folder / "disk.vmdk", folder / "bench.ova"
    with raw.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, disk], check=True)
    raw.unlink()
    descriptor = folder / "bench.ovf"
    descriptor.write_text(DESCRIPTOR.format(size=disk.stat().st_size, capacity=mib << 20))
    with tarfile.open(ova, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member in (descriptor, disk):
            archive.add(member, member.name)
    disk.unlink()
    with ova.open("rb") as file:
        return ova, hashlib.file_digest(file, "sha256").hexdigest()


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def of_children(command, **more):
    """CPU seconds and wall seconds of a command."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **more)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.monotonic() - begun


class Api:
    def __init__(self, url):
        self.url, self.token = url, None
        answer = self.call("POST", "/v1/auth:login", {"email": EMAIL, "password": PASSWORD, "tenant": "provider"})
        self.token = answer["accessToken"]

    def call(self, method, path, body=None):
        headers = {"content-type": "application/json"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request) as reply:
            return json.loads(reply.read() or "{}")


class Roles:
    """Server, gateway and worker, each by itself."""

    def __init__(self, keeper, folder):
        run = keeper.data / "run"
        owner = f"host={run} user=postgres"
        subprocess.run(["psql", "-qd", f"{owner} dbname=postgres", "-c", "CREATE DATABASE bench"], check=True)
        self.grpc, self.http = free_port(), free_port()
        self.variables = {k: v for k, v in os.environ.items() if not k.startswith("VIRTUALSTACK_")} | {
            "VIRTUALSTACK_DATABASE_URL": f"host={run} user=virtualstack_login dbname=bench",
            "VIRTUALSTACK_DATABASE_MIGRATE_URL": f"{owner} dbname=bench",
            "VIRTUALSTACK_MASTER_KEY_FILE": str(keeper.data / "master.key"),
            "VIRTUALSTACK_GATEWAY_SECRET": "a-secret-of-this-bench-and-no-other-one",
            "VIRTUALSTACK_SERVER_LISTEN": f"127.0.0.1:{self.grpc}",
            "VIRTUALSTACK_GATEWAY_LISTEN": f"127.0.0.1:{self.http}",
            "VIRTUALSTACK_GATEWAY_UPSTREAM": f"http://127.0.0.1:{self.grpc}",
            "VIRTUALSTACK_OPS_LISTEN": "127.0.0.1:0",
            "VIRTUALSTACK_STORAGE_FOLDER": str(folder / "objects"),
            "VIRTUALSTACK_ADMIN_EMAIL": EMAIL,
            "VIRTUALSTACK_ADMIN_PASSWORD": PASSWORD,
            # The PostgreSQL of an `up` has so many as it may use itself.
            "VIRTUALSTACK_DATABASE_MAX_CONNECTIONS": "5",
            "VIRTUALSTACK_LOG_FORMAT": "json",
        }
        self.binary, self.folder, self.processes = keeper.binary, folder, {}
        for command in (["migrate"], ["admin", "first-admin"]):
            subprocess.run([self.binary, *command], env=self.variables, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for role in ("server", "gateway", "worker"):
            with (folder / f"{role}.log").open("wb") as log:
                self.processes[role] = subprocess.Popen([self.binary, role], env=self.variables, cwd=folder, stdout=log,
                                                        stderr=log, stdin=subprocess.DEVNULL)

    def api(self):
        for _ in range(200):
            with contextlib.suppress(OSError):
                return Api(f"http://127.0.0.1:{self.http}")
            time.sleep(0.1)
        logs = [(self.folder / f"{role}.log").read_text()[-500:] for role in self.processes]
        raise product.Wrong("the roles did not start: " + "\n".join(logs))

    def seen(self):
        return {role: (cpu_seconds(it.pid), peak_mib(it.pid)) for role, it in self.processes.items()}

    def close(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(30)


def measure(roles, folder, ova, sha256, gib):
    api = roles.api()
    idle = roles.seen()
    template = api.call("POST", "/v1/templates", {"displayName": "bench", "kind": "OVA"})["name"]
    upload = ["curl", "-sfT", str(ova), "-H", f"authorization: Bearer {api.token}", f"{api.url}/v1/{template}:upload"]
    curl, took = of_children(upload)
    uploaded = roles.seen()
    say(f"uploaded {gib:.2f} GiB in {took:.1f} s; curl took {curl / gib:.2f} s of CPU per GiB")
    operation = api.call("POST", f"/v1/{template}:import", {"sha256": sha256})
    begun = time.monotonic()
    while not operation.get("done"):
        time.sleep(0.5)
        operation = api.call("GET", f"/v1/{operation['name']}")
    if "error" in operation:
        raise product.Wrong(f"the import failed: {operation['error']}")
    imported = roles.seen()
    say(f"checked and imported in {time.monotonic() - begun:.1f} s")
    floor, _ = of_children(["sha256sum", str(ova)])
    port = free_port()
    plain = subprocess.Popen([sys.executable, "-c", FILE_SERVER, str(port), str(folder / "plain")])
    try:
        time.sleep(1)
        of_curl, plain_took = of_children(["curl", "-sfT", str(ova), f"http://127.0.0.1:{port}/"])
        of_plain = cpu_seconds(plain.pid)
    finally:
        plain.terminate()
        plain.wait()
    print(f"\n{'':28}{'CPU s per GiB':>14}{'peak MiB':>10}{'idle MiB':>10}")
    for role in ("gateway", "server", "worker"):
        before, after = (uploaded, imported) if role == "worker" else (idle, uploaded)
        used = (after[role][0] - before[role][0]) / gib
        print(f"{role:28}{used:14.2f}{after[role][1]:10.0f}{idle[role][1]:10.0f}")
    print(f"{'sha256sum':28}{floor / gib:14.2f}")
    print(f"{'plain file server':28}{of_plain / gib:14.2f}   ({plain_took:.1f} s with curl, {of_curl / gib:.2f} s/GiB of it curl's)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="release")
    parser.add_argument("--mib", type=int, default=4096, help="size of the disk")
    arguments = parser.parse_args()
    with workspace(False) as folder:
        say(f"making an OVA of {arguments.mib} MiB")
        ova, sha256 = make_ova(folder, arguments.mib)
        keeper = Product(folder, arguments.profile, {"database_max_connections": 60})
        keeper.start()
        roles = None
        try:
            if not keeper.wait(120):
                raise product.Wrong("it did not start")
            roles = Roles(keeper, folder)
            measure(roles, folder, ova, sha256, ova.stat().st_size / (1 << 30))
        finally:
            if roles:
                roles.close()
            keeper.close()


if __name__ == "__main__":
    main()
