#!/usr/bin/env python3
"""What attackers take from another tenant: each attack for some seconds, and what its victim sees.

    make chaos-load    or    tests/chaos/load.py [--seconds 8] [--only NAME] [--before BINARY]

The victim is a member of another tenant who asks for its quota ten times a second, each time on a new connection. The attackers
come from another address of this machine and share its processors, so each attack is run twice: against a bare HTTP/2 sink, which
tells what the machine alone costs the victim, and against the product. With --before, another binary is attacked first.
Told are the victim's calls that failed, its median and 99th percentile, and the product's memory.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import grpc
from product import EMAIL, PASSWORD, Cluster, Product, Wrong, say, table, target, workspace

ATTACKER = "127.0.0.9"
LIMITS = {"server_auth_per_minute": 100_000, "server_auth_per_address_per_minute": 100_000}
AIM = 5


def ask(address, method, path, body=None, token=None, source="127.0.0.1", seconds=30, headers=None):
    """Status and JSON of one call on a connection of its own."""
    connection = http.client.HTTPConnection(*address, timeout=seconds, source_address=(source, 0))
    try:
        head = {"content-type": "application/json"} | (headers or {})
        if token:
            head["authorization"] = f"Bearer {token}"
        connection.request(method, path, body and json.dumps(body), head)
        reply = connection.getresponse()
        text = reply.read()
        return reply.status, json.loads(text) if text[:1] == b"{" else {}
    finally:
        connection.close()


class Victim(threading.Thread):
    """Calls ten times a second, whatever becomes of it."""

    def __init__(self, address, token):
        super().__init__(daemon=True)
        self.address, self.token = address, token
        self.ended, self.took, self.failed = threading.Event(), [], []

    def run(self):
        due = time.monotonic()
        while not self.ended.is_set():
            due += 0.1
            began = time.monotonic()
            try:
                status, _ = ask(self.address, "GET", "/v1/quota", token=self.token, seconds=20)
                if status != 200:
                    self.failed.append(status)
            except OSError as error:
                self.failed.append(type(error).__name__)
            self.took.append((time.monotonic() - began) * 1e3)
            time.sleep(max(0, due - time.monotonic()))

    def end(self):
        self.ended.set()
        self.join()
        return self


class Target:
    """What is attacked: the product, or a sink in its place."""

    def __init__(self, http, grpc, token, keys, vms, operation):
        self.http, self.grpc, self.token, self.keys, self.vms, self.operation = http, grpc, token, keys, vms, operation
        self.over = threading.Event()

    def loop(self, threads, call, pause=0.0):
        """Calls in so many threads until it is over."""
        def work(number):
            for turn in itertools.count():
                if self.over.is_set():
                    return
                with contextlib.suppress(Exception):
                    call(number, turn)
                if pause:
                    time.sleep(pause)
        workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
        for worker in workers:
            worker.start()
        return workers

    def rest(self, method, path, body=None, seconds=20):
        return ask(self.http, method, path, body, self.token, ATTACKER, seconds)

    def channel(self, number):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), ("attack", number)]
        return grpc.insecure_channel(f"{self.grpc[0]}:{self.grpc[1]}", options)


def never():
    """A request's messages, none of which ever comes."""
    threading.Event().wait()
    yield b""


RAW = {"request_serializer": bytes, "response_deserializer": bytes}


def errors_without_end(to):
    """A1: bodies with thousands of things wrong, once a second each."""
    labels = {f"-{number}": "\U0001f600" for number in range(5000)}
    def call(number, turn):
        if number == 0:
            to.rest("POST", "/v1/vms", {"displayName": "x", "labels": labels})
        elif number == 1:
            to.rest("PATCH", "/v1/vms/01900000-0000-7000-8000-000000000000?updateMask=" + "a," * 7900, {})
        else:
            to.rest("GET", "/v1/vms?filter=" + urllib.parse.quote("\U0001f600" * 1000))
    to.loop(3, call, 1)


def calls_of_nobody(to):
    """A2: calls with a credential that is none, whose bodies never come, and JSON that does not end."""
    to.kept = []
    for number in range(5):
        channel = to.channel(number)
        call = channel.stream_unary("/virtualstack.compute.v1.VmService/ListVms", **RAW)
        for _ in range(250):
            to.kept.append(call.future(never(), timeout=300, metadata=[("authorization", "Bearer x")]))
        to.kept.append(channel)
    def body(number, turn):
        stream = socket.create_connection(to.http, 5, (ATTACKER, 0))
        to.kept.append(stream)
        stream.sendall(b"POST /v1/vms HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                       b"content-length: 100\r\ngrpc-timeout: 1H\r\n\r\n{")
        time.sleep(0.01)
    to.loop(4, body)


def silent_connections(to):
    """A3: connections that ask nothing, as many as there may be, to both ports."""
    to.kept = []
    def connect(number, turn):
        if len(to.kept) < 9000:
            address = to.http if number % 2 else to.grpc
            to.kept.append(socket.create_connection(address, 5, (ATTACKER, 0)))
        else:
            time.sleep(0.1)
    to.loop(8, connect)


def costly_lists(to):
    """A4: lists with filters that no index serves, and large pages."""
    terms = " OR ".join(f"displayName:t{number}" for number in range(16))
    costly = "/v1/vms?pageSize=1000&filter=" + urllib.parse.quote(terms)
    to.loop(60, lambda number, turn: to.rest("GET", costly if number % 2 else "/v1/vms?pageSize=1000&showTotal=true"))


def short_deadlines(to):
    """A5: calls with keys that are made up and a deadline of 7 ms."""
    calls = [to.channel(number).unary_unary("/virtualstack.compute.v1.VmService/ListVms", **RAW) for number in range(4)]
    to.loop(8, lambda number, turn: calls[number % 4](
        b"", timeout=0.007, metadata=[("x-api-key", to.keys[turn % len(to.keys)])]))


def hashes_and_waits(to):
    """A6: new users in a burst, waits without end, and replies that nobody reads."""
    to.kept = []
    def call(number, turn):
        if number < 8:
            address = f"u{number}-{turn}-{time.monotonic_ns()}@example.com"
            user = {"email": address, "displayName": "U", "password": "correct-horse-battery-staple-2"}
            to.rest("POST", "/v1/users", user)
        elif number < 40:
            to.rest("POST", f"/v1/{to.operation}:wait", {"timeout": "60s"}, seconds=5)
        else:
            stream = socket.create_connection(to.http, 5, (ATTACKER, 0))
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream.sendall(f"GET /v1/vms?pageSize=1000 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {to.token}\r\n\r\n".encode())
            to.kept.append(stream)
            time.sleep(0.05)
    to.loop(44, call)


def refusals(to):
    """A7: calls that are refused, as many as go."""
    call = to.channel(0).unary_unary("/virtualstack.iam.v1.TenantService/CreateTenant", **RAW)
    to.loop(16, lambda number, turn: call(b"", timeout=5, metadata=[("authorization", f"Bearer {to.token}")]))


ATTACKS = [errors_without_end, calls_of_nobody, silent_connections, costly_lists, short_deadlines, hashes_and_waits, refusals]


def memory(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024


def made_up_keys():
    """Keys of the right form that nobody has."""
    import zlib
    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    def base62(number, width):
        text = ""
        while number:
            number, digit = divmod(number, 62)
            text = letters[digit] + text
        return text.rjust(width, "0")
    for number in range(500):
        key = f"vsk_{number:016d}_{number:043d}"
        yield key + base62(zlib.crc32(key.encode()), 6)


class Side:
    """A binary, an attacker's tenant with VMs, and a victim's."""

    def __init__(self, name, binary, folder):
        self.name, folder = name, folder / name
        folder.mkdir(mode=0o755)
        self.product = Product(folder, "release", {"log_format": "pretty", "log_filter": "warn", "worker_concurrency": 1} | LIMITS)
        if binary:
            import shutil
            shutil.copy2(binary, self.product.binary)

    def start(self):
        self.product.start()
        if not self.product.wait(90):
            raise Wrong(f"it does not start:\n{self.product.log.read_text()[-2000:]}")
        address = lambda url: (urllib.parse.urlsplit(url).hostname, urllib.parse.urlsplit(url).port)
        self.http, self.grpc = address(self.product.ready["http"]), address(self.product.ready["grpc"])
        self.cluster = Cluster(self.product.data)
        while not self.cluster.query("SELECT id FROM compute.provider_templates LIMIT 1"):
            time.sleep(0.1)
        operator = self.login(EMAIL, PASSWORD, "provider")
        for slug in ("greedy", "victim"):
            body = {"tenant": {"slug": slug, "displayName": slug}, "adminEmail": f"a@{slug}.example", "adminPassword": PASSWORD}
            status, reply = ask(self.http, "POST", "/v1/tenants", body, operator)
            if status != 200:
                raise Wrong(f"no tenant {slug}: {reply}")
        self.greedy, self.victim = (self.login(f"a@{slug}.example", PASSWORD, slug) for slug in ("greedy", "victim"))
        self.cluster.run("""
            INSERT INTO compute.virtual_machines (tenant_id, id, display_name, state, cpu_count, memory_mib, disk_gib, template_id,
                template_reference, template_display_name, guest_os, ip_addresses, labels, owner_id)
            SELECT m.tenant_id, gen_random_uuid(), 'vm-' || n, 'RUNNING', 2, 4096, 40, p.id, p.reference, p.display_name, p.guest_os,
                ARRAY['192.0.2.1'], '{"env": "load"}', m.id
            FROM generate_series(1, 20000) n, (SELECT * FROM compute.provider_templates LIMIT 1) p,
                iam.memberships m JOIN iam.tenants t ON t.id = m.tenant_id AND t.slug = 'greedy'""")
        self.cluster.run("VACUUM ANALYZE")
        (vm,) = self.cluster.query("SELECT v.id FROM compute.virtual_machines v LIMIT 1")
        operation = self.cluster.query("SELECT 1 AS one") and "operations/01900000-0000-7000-8000-000000000001"
        self.cluster.run(f"""
            INSERT INTO compute.operations (tenant_id, id, target, slot, verb, state, actor, step, deadline_at)
            SELECT t.id, '{operation.split("/")[1]}', 'vms/{vm["id"]}', 'vms/{vm["id"]}', 'STOP', 'OPEN', 'test', '', now() + interval '1 day'
            FROM iam.tenants t WHERE slug = 'greedy'""")
        self.operation = operation

    def login(self, email, password, tenant):
        status, reply = ask(self.http, "POST", "/v1/auth:login", {"email": email, "password": password, "tenant": tenant})
        if status != 200:
            raise Wrong(f"{email} cannot sign in: {reply}")
        return reply["accessToken"]

    def attack(self, attack, http, grpc, seconds):
        """What the victim sees while an attack goes on against these addresses."""
        to = Target(http, grpc, self.greedy, list(made_up_keys()), [], self.operation)
        victim = Victim(self.http, self.victim)
        victim.start()
        peak = memory(self.product.process.pid)
        if attack:
            attack(to)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            peak = max(peak, memory(self.product.process.pid))
            time.sleep(0.2)
        victim.end()
        to.over.set()
        for kept in getattr(to, "kept", []):
            with contextlib.suppress(Exception):
                (getattr(kept, "cancel", None) or kept.close)()
        time.sleep(3)
        return victim, peak


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))]


def run(arguments, folder):
    sides = [Side("now", None, folder)]
    if arguments.before:
        sides.insert(0, Side("before", arguments.before, folder))
    sink = subprocess.Popen([target("release") / "sink-bench"], stdout=subprocess.PIPE, text=True)
    rows, missed = [], 0
    try:
        port = int(sink.stdout.readline())
        for side in sides:
            side.start()
            alone, memory_alone = side.attack(None, side.http, side.grpc, arguments.seconds)
            rows.append((side.name, "nobody attacks", f"{len(alone.failed)} of {len(alone.took)}",
                         f"{statistics.median(alone.took):.0f}", f"{percentile(alone.took, 0.99):.0f}", "", "", memory_alone))
            for attack in ATTACKS:
                if arguments.only and arguments.only not in attack.__name__:
                    continue
                say(f"{side.name}: {attack.__doc__}")
                bare, _ = side.attack(attack, ("127.0.0.1", port), ("127.0.0.1", port), arguments.seconds)
                seen, peak = side.attack(attack, side.http, side.grpc, arguments.seconds)
                floor, worst = percentile(bare.took, 0.99), percentile(seen.took, 0.99)
                good = not seen.failed and worst <= AIM * floor
                missed += side.name == "now" and not good
                rows.append((side.name, attack.__doc__.split(":")[0] + " " + attack.__name__.replace("_", " "),
                             f"{len(seen.failed)} of {len(seen.took)}", f"{statistics.median(seen.took):.0f}", f"{worst:.0f}",
                             f"{floor:.0f}", f"{worst / floor:.1f} {'reached' if good else 'missed'}", peak))
            side.product.close()
    finally:
        sink.kill()
        for side in sides:
            side.product.close()
    table(f"the victim, {arguments.seconds} s an attack; aim: none failed, p99 at most {AIM} × that beside a bare sink",
          ["of", "attack", "failed", "median ms", "p99 ms", "p99 beside a sink", "ratio", "MiB at most"], rows)
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8, help="of each attack (8)")
    parser.add_argument("--only", help="attacks whose names have this in them")
    parser.add_argument("--before", type=Path, help="another release binary, to be attacked first")
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    arguments = parser.parse_args()
    try:
        with workspace(arguments.keep) as folder:
            return 1 if run(arguments, folder) else 0
    except Wrong as wrong:
        print(f"\n{wrong}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
