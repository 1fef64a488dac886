#!/usr/bin/env python3
"""What a call costs the release binary and its PostgreSQL in CPU time, beside what it cannot do without.

    make bench    or    tests/bench/calls.py [--rounds 3] [--before BINARY]

`virtualstack up` runs in its default configuration, but for the rate limits, which stand above what is called here. Authenticated
GetVm, and ListVms of 50 among 10,000 VMs, go over gRPC with eight calls in flight; logins stand beside bare Argon2id. CreateVm is a
commit (VM, quota, operation, job, audit, change), without a worker. The floors: pgbench sends the same SELECT, as PostgreSQL has
logged it, back to back; a program of tokio-postgres sends it with as many in flight as there are calls; pgbench does the
statements of CreateVm, with ids and names of its own. With --before, another binary is measured in turn with this one, on a data
folder of its own. What counts is CPU time, and not the client's. What is told is the median of the rounds.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import grpc
from product import EMAIL, PASSWORD, ROOT, Cluster, Product, Wrong, say, table, target, workspace
from virtualstack.compute.v1 import vm_pb2, vm_pb2_grpc
from virtualstack.iam.v1 import auth_pb2, auth_pb2_grpc

IN_FLIGHT = 8
VMS = 10_000
PAGE = 50
GETS, LISTS, CREATES = 5_000, 1_500, 2_000
LOGINS = 60
REFUSALS = 200
# Of what is called so often before it counts: connections are open then, statements prepared, caches warm.
WARM = 0.1
LIMITS = {"server_calls_per_second": 1_000_000, "server_calls_burst": 1_000_000, "server_auth_per_minute": 100_000,
          "server_auth_per_address_per_minute": 100_000}
NOW, BEFORE = "now", "before"


def cpu(pid, ended=False):
    """Seconds of user and system time of a process; with its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15 if ended else 13])) / os.sysconf("SC_CLK_TCK")


class Meter:
    """The product's process, and PostgreSQL's: the postmaster, its children, and those that have ended."""

    def __init__(self, product, cluster):
        self.product = product.process.pid
        self.postmaster = int((cluster.data / "postmaster.pid").read_text().split()[0])

    def read(self):
        children = Path(f"/proc/{self.postmaster}/task/{self.postmaster}/children").read_text().split()
        postgres = cpu(self.postmaster, ended=True)
        for child in children:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                postgres += cpu(child)
        return cpu(self.product), postgres


class Client:
    """Calls with a session's token, each of the eight on a connection of its own."""

    def __init__(self, address):
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels = [grpc.aio.insecure_channel(address, options) for _ in range(IN_FLIGHT)]
        self.metadata = None
        self.created = 0

    async def login(self, channel):
        request = auth_pb2.LoginRequest(email=EMAIL, password=PASSWORD, tenant="demo")
        return await auth_pb2_grpc.AuthServiceStub(channel).Login(request, timeout=30)

    async def authenticate(self):
        tokens = await self.login(self.channels[0])
        self.metadata = [("authorization", f"Bearer {tokens.access_token}")]

    async def get(self, channel, name):
        request = vm_pb2.GetVmRequest(name=name)
        return await vm_pb2_grpc.VmServiceStub(channel).GetVm(request, metadata=self.metadata, timeout=30)

    async def list(self, channel):
        request = vm_pb2.ListVmsRequest(page_size=PAGE)
        page = await vm_pb2_grpc.VmServiceStub(channel).ListVms(request, metadata=self.metadata, timeout=30)
        if len(page.vms) != PAGE:
            raise Wrong(f"a page of {len(page.vms)} VMs instead of {PAGE}")

    async def create(self, channel, template):
        self.created += 1
        vm = vm_pb2.Vm(display_name=f"made-{os.getpid()}-{self.created}", template=template)
        request = vm_pb2.CreateVmRequest(vm=vm)
        await vm_pb2_grpc.VmServiceStub(channel).CreateVm(request, metadata=self.metadata, timeout=30)

    async def repeat(self, count, call, in_flight=IN_FLIGHT):
        async def some(channel):
            for _ in range(count // in_flight):
                await call(channel)
        await asyncio.gather(*(some(channel) for channel in self.channels[:in_flight]))

    async def cost(self, meter, count, call, in_flight=IN_FLIGHT):
        """Microseconds of the product and of PostgreSQL per call, and how long one took its caller."""
        await self.repeat(int(count * WARM), call, in_flight)
        before, began = meter.read(), time.monotonic()
        await self.repeat(count, call, in_flight)
        calls = count // in_flight * in_flight
        took = (time.monotonic() - began) / calls * in_flight * 1e6
        return [(after - before) / calls * 1e6 for after, before in zip(meter.read(), before)] + [took]

    async def close(self):
        for channel in self.channels:
            await channel.close()


class Select:
    """The SELECT that the server sent for a call, in PostgreSQL's words."""

    def __init__(self, log, table_name):
        found = None
        for line in log.splitlines():
            if message := re.search(r"\[(\d+)\] LOG:  execute [^ :]+: (SELECT .*)$", line):
                found = (message[1], message[2]) if f"FROM {table_name}" in message[2] else None
            elif found and (detail := re.search(r"\[(\d+)\] DETAIL:  parameters: (.*)$", line)) and detail[1] == found[0]:
                self.text = found[1]
                self.parameters = dict(re.findall(r"\$(\d+) = (?:'((?:[^']|'')*)'|NULL)", detail[2]))
                return
        raise Wrong(f"PostgreSQL has not logged a SELECT of {table_name}")

    def bound(self):
        """With its parameters in it."""
        return re.sub(r"\$(\d+)", lambda at: f"'{self.parameters[at[1]]}'", self.text)


class Commit:
    """What the server sent to create one VM, as a script of pgbench: every statement prepared, those that go in one message
    in one pipeline. What was new in it (ids, the name) is new in each run; the rest stays as it was bound."""

    # pgbench leaves it to PostgreSQL to find out what parameters are, which these statements do not tell.
    TYPES = {"audit.change_heads": "uuid text text[] text[] text[] text[] uuid[] jsonb[] text[] jsonb[]".split()}
    UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

    def __init__(self, log, known):
        """`known` tells whether there was something with an id before."""
        messages = self._messages(log)
        bound = [value for _, _, parameters in messages for value in parameters.values() if value]
        ids = [value for value in dict.fromkeys(bound) if re.fullmatch(self.UUID, value)]
        self.fresh = [value for value in ids if not known(value)]
        self.name = next(value for value in bound if re.fullmatch(r"made-\d+-\d+", value))
        self.variables, self.lines = {}, ["\\set n :n + 1", f"\\set id :n * {IN_FLIGHT} + :client_id"]
        for kind, text, parameters in messages:
            if kind == "statement":
                parts = [part.strip() + ";" for part in text.split(";") if part.strip()]
                self.lines += ["\\startpipeline", *parts, "\\endpipeline"] if len(parts) > 1 else parts
            else:
                types = next((types for table, types in self.TYPES.items() if table in text), None)
                self.lines.append(re.sub(r"\$(\d+)", lambda at: self._value(at[1], parameters, types), text) + ";")
        self.statements = sum(kind == "execute" for kind, _, _ in messages)

    @staticmethod
    def _messages(log):
        by_backend = {}
        for line in log.splitlines():
            found = re.search(r"\[(\d+)\] (?:LOG|DETAIL):  (statement|execute|parameters)(?: [^ :]+)?: (.*)$", line)
            if not found:
                continue
            backend, kind, text = found.groups()
            messages = by_backend.setdefault(backend, [])
            if kind == "parameters":
                pairs = re.findall(r"\$(\d+) = (?:'((?:[^']|'')*)'|(NULL))", text)
                messages[-1][2].update({n: None if null else value.replace("''", "'") for n, value, null in pairs})
                continue
            if text.startswith("BEGIN"):
                messages.clear()
            messages.append((kind, text, {}))
            if text == "COMMIT" and any('INSERT INTO "compute"."virtual_machines"' in message[1] for message in messages):
                return messages
        raise Wrong("PostgreSQL has not logged a CreateVm")

    def _value(self, number, parameters, types):
        value, cast = parameters[number], f"::{types[int(number) - 1]}" if types else ""
        if value is None:
            return f"NULL{cast}"
        prefix, _, last = value.rpartition("/")
        if last in self.fresh:
            # Rising, as the server's are; each kind of its own.
            fresh = f"lpad(to_hex(:id::bigint * {len(self.fresh)} + {self.fresh.index(last)}), 32, '0')::uuid"
            return f"('{prefix}/' || {fresh}{cast})" if prefix else f"{fresh}{cast}"
        if value == self.name:
            return "('pgbench-' || :id::bigint)"
        if value == "":
            return f"''{cast}"
        # One variable for each value: what is bound twice is the same.
        name = next((name for name, known in self.variables.items() if known == value), f"v{len(self.variables)}")
        self.variables[name] = value
        return f":{name}{cast}"


class Pgbench:
    """Runs scripts on the product's database. What connections cost is counted out: by a run of few transactions."""

    FEW = 20

    def __init__(self, folder, cluster, meter):
        self.folder, self.cluster, self.meter = folder, cluster, meter
        self.began = 0

    def _run(self, script, mode, user, options, count, variables):
        command = [self.cluster.binaries / "pgbench", "-n", "-h", self.cluster.sockets, "-U", user, "-M", mode,
                   "-c", str(IN_FLIGHT), "-t", str(count), "-f", script, "virtualstack"]
        command[1:1] = [part for name, value in variables.items() for part in ("-D", f"{name}={value}")]
        before = self.meter.read()[1]
        process = subprocess.Popen(command, env=os.environ | {"PGOPTIONS": options}, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        error = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise Wrong(f"pgbench: {error}")
        # Its connections are gone when the postmaster has reaped their processes.
        while self.cluster.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench'"):
            time.sleep(0.05)
        return self.meter.read()[1] - before, used.ru_utime + used.ru_stime

    def cost(self, name, lines, count, mode="simple", user="postgres", options="", variables=None):
        """Microseconds of PostgreSQL and of pgbench itself per run of the script."""
        script = self.folder / f"{name}.sql"
        script.write_text("\n".join(lines) + "\n")
        count //= IN_FLIGHT
        given = variables if callable(variables) else lambda: variables or {}
        few = self._run(script, mode, user, options, self.FEW, given())
        all_of_it = self._run(script, mode, user, options, self.FEW + count, given())
        return [(a - f) / (count * IN_FLIGHT) * 1e6 for a, f in zip(all_of_it, few)]

    def select(self, select, count):
        """The SELECT alone, prepared, with the parameters that the server bound."""
        text = re.sub(r"\$(\d+)", r":p\1", select.text)
        variables = {f"p{number}": value for number, value in select.parameters.items()}
        return self.cost("select", [f"{text};"], count, "prepared", variables=variables)[0]

    def commit(self, commit, count):
        """The whole transaction, as the server made it."""
        # Each run goes on where the one before has ended, so that nothing is made twice.
        def variables():
            self.began += 1_000_000
            return commit.variables | {"n": self.began}
        return self.cost("commit", commit.lines, count, "prepared", variables=variables)


def in_flight(select, cluster, meter, count):
    """Microseconds of PostgreSQL per SELECT in one round trip by tokio-postgres, with as many in flight as there are calls."""
    def run(count):
        before = meter.read()[1]
        program = [target("release") / "select-bench", str(cluster.sockets), str(IN_FLIGHT), str(count), select.bound()]
        if subprocess.run(program).returncode:
            raise Wrong("select-bench failed")
        while cluster.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'select-bench'"):
            time.sleep(0.05)
        return meter.read()[1] - before
    few = run(20)
    return (run(20 + count // IN_FLIGHT) - few) / (count // IN_FLIGHT * IN_FLIGHT) * 1e6


def seed(cluster):
    """Ten thousand VMs of the demo tenant, and the name of one in their midst."""
    run = cluster.run
    # Ids like those of ten thousand VMs that came one after the other: UUIDs of version 7.
    run(f"""
        INSERT INTO compute.virtual_machines (tenant_id, id, display_name, state, cpu_count, memory_mib, disk_gib, template_id,
            template_reference, template_display_name, guest_os, ip_addresses, labels, owner_id)
        SELECT m.tenant_id, format('01a00000-%s-7000-8000-%s', lpad(to_hex(n), 4, '0'), lpad(to_hex(n), 12, '0'))::uuid,
            'bench-' || n, 'RUNNING', 2, 4096, 40, p.id, p.reference, p.display_name, p.guest_os, ARRAY['192.0.2.1'],
            '{{"env": "bench"}}', m.id
        FROM generate_series(1, {VMS}) n, (SELECT * FROM compute.provider_templates LIMIT 1) p,
            iam.memberships m JOIN iam.tenants t ON t.id = m.tenant_id AND t.slug = 'demo'
        """)
    # So that autovacuum need not, later.
    run("VACUUM ANALYZE")
    (vm,) = cluster.query(f"SELECT id FROM compute.virtual_machines WHERE display_name = 'bench-{VMS // 2}'")
    return f"vms/{vm['id']}"


async def logged(cluster, call):
    """What PostgreSQL logs meanwhile, with all statements."""
    async def log_statements(setting):
        for sql in (f"ALTER SYSTEM {setting}", "SELECT pg_reload_conf()"):
            subprocess.run(["psql", "-h", cluster.sockets, "-U", "postgres", "-d", "virtualstack", "-Xq", "-c", sql], check=True,
                           stdout=subprocess.DEVNULL)
        # Every backend looks at its settings by itself.
        await asyncio.sleep(1)
    log = cluster.data / "server.log"
    start = log.stat().st_size
    await log_statements("SET log_statement = 'all'")
    await call()
    await log_statements("RESET log_statement")
    return log.read_text()[start:]


async def refused_logins(client, cluster):
    """Median milliseconds of logins that are refused, by what was wrong; one of each in turn, so that noise meets all."""
    known = cluster.query("SELECT password_hash FROM iam.users LIMIT 1")[0]["password_hash"]
    cluster.run(f"INSERT INTO iam.users (id, email, display_name, password_hash, state) VALUES "
                f"(gen_random_uuid(), 'inactive@example.com', 'Inactive', '{known}', 'INACTIVE')")
    tried = {"wrong password": (EMAIL, "not the password of it"), "inactive": ("inactive@example.com", PASSWORD),
             "unknown": ("nobody@example.com", PASSWORD)}
    took = {what: [] for what in tried}
    for _ in range(REFUSALS):
        for what, (email, password) in tried.items():
            request = auth_pb2.LoginRequest(email=email, password=password)
            began = time.monotonic()
            try:
                await auth_pb2_grpc.AuthServiceStub(client.channels[0]).Login(request, timeout=30)
                raise Wrong(f"a login with what is {what} succeeds")
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAUTHENTICATED:
                    raise
            took[what].append((time.monotonic() - began) * 1e3)
    return {what: statistics.median(times) for what, times in took.items()}


def bare_hash(count=40):
    """Microseconds of a password's check alone, in a process of its own."""
    program = target("release") / "argon2id-bench"
    def run(count):
        process = subprocess.Popen([program, str(count)])
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise Wrong(f"{program} ended with {process.returncode}")
        return used.ru_utime + used.ru_stime
    few = run(2)
    return (run(count + 2) - few) / count * 1e6


class Side:
    """One binary at work on a data folder of its own."""

    def __init__(self, name, binary, folder):
        self.name, folder = name, folder / name
        folder.mkdir(mode=0o755)
        self.product = Product(folder, "release", {"log_format": "pretty", "log_filter": "info"} | LIMITS)
        if binary:
            shutil.copy2(binary, self.product.binary)
        self.cluster = Cluster(self.product.data)
        self.client = None

    async def start(self):
        self.product.start()
        if not self.product.wait(90):
            raise Wrong(f"it does not start:\n{self.product.log.read_text()[-2000:]}")
        for _ in range(300):
            if self.cluster.query("SELECT id FROM compute.provider_templates LIMIT 1"):
                break
            await asyncio.sleep(0.1)
        self.vm = seed(self.cluster)
        await self.connect(self.product.ready["grpc"])

    async def connect(self, address):
        self.meter = Meter(self.product, self.cluster)
        self.client = Client(address.removeprefix("http://"))
        await self.client.authenticate()

    async def start_server_alone(self):
        """The same data without a worker, whose CPU is not the call's."""
        await self.client.close()
        self.product.process.terminate()
        if not self.product.ended(45):
            raise Wrong("it does not stop on SIGTERM")
        self.cluster.start()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.product.serve(address, f"host={self.cluster.sockets} user=virtualstack_login dbname=virtualstack")
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(tuple(address.rsplit(":", 1)), 1):
                break
            await asyncio.sleep(0.1)
        await self.connect(address)

    async def close(self):
        if self.client:
            await self.client.close()
        self.product.close()


async def prepare_creates(side):
    """What creates a VM, and its statements."""
    cluster, client = side.cluster, side.client
    (template,) = cluster.query("SELECT id FROM compute.provider_templates WHERE kind = 'OVA' ORDER BY id LIMIT 1")
    create = lambda channel: side.client.create(channel, f"templates/{template['id']}")
    await client.repeat(IN_FLIGHT * 4, create)
    before = cluster.query("SELECT now() AS at")[0]["at"]
    log = await logged(cluster, lambda: create(client.channels[0]))
    known = lambda id: not cluster.query(
        f"SELECT 1 FROM (SELECT id FROM compute.virtual_machines WHERE created_at >= '{before}' UNION ALL "
        f"SELECT id FROM compute.operations WHERE created_at >= '{before}' UNION ALL "
        f"SELECT id FROM background_jobs.jobs WHERE created_at >= '{before}' UNION ALL "
        f"SELECT id FROM audit.logs WHERE created_at >= '{before}') made WHERE id = '{id}'")
    return create, Commit(log, known)


async def run(arguments, folder):
    sides = [Side(NOW, None, folder)]
    if arguments.before:
        sides.insert(0, Side(BEFORE, arguments.before, folder))
    now = sides[-1]
    seen = {}
    def note(*key, value):
        seen.setdefault(key, []).append(value)
    def read(*key):
        values = seen[key]
        return f"{statistics.median(values):.0f}", f"{min(values):.0f} to {max(values):.0f}"
    try:
        for side in sides:
            await side.start()
        calls = {
            "GetVm": (GETS, lambda side: lambda channel: side.client.get(channel, side.vm)),
            f"ListVms, {PAGE} of {VMS}": (LISTS, lambda side: side.client.list),
        }
        selects = {}
        for name, (_, call) in calls.items():
            # Once before: the first call of a session reads who it is.
            await now.client.repeat(IN_FLIGHT * 8, call(now))
            selects[name] = Select(await logged(now.cluster, lambda: call(now)(now.client.channels[0])),
                                   '"compute"."virtual_machines"')
        before = now.meter.read()
        await asyncio.sleep(3)
        idle = [(after - before) / 3 * 1e6 for after, before in zip(now.meter.read(), before)]
        pgbench = Pgbench(folder, now.cluster, now.meter)
        for number in range(arguments.rounds):
            say(f"round {number + 1} of {arguments.rounds}")
            for name, (count, call) in calls.items():
                for side in sides:
                    server, postgres, took = await side.client.cost(side.meter, count, call(side))
                    note(name, side.name, "server", value=server)
                    note(name, side.name, "postgres", value=postgres)
                    note(name, side.name, "took", value=took)
                note(name, "pgbench", value=pgbench.select(selects[name], count))
                note(name, "in flight", value=in_flight(selects[name], now.cluster, now.meter, count))
            # As many at once as it hashes at once.
            note("Login", "bare", value=bare_hash())
            server, postgres, took = await now.client.cost(now.meter, LOGINS, now.client.login, 2)
            for what, value in {"server": server, "postgres": postgres, "took": took}.items():
                note("Login", what, value=value)
        refused = await refused_logins(now.client, now.cluster)
        creates, commits = {}, {}
        for side in sides:
            await side.start_server_alone()
            creates[side], commits[side] = await prepare_creates(side)
        pgbench = Pgbench(folder, now.cluster, now.meter)
        for number in range(arguments.rounds):
            say(f"CreateVm, round {number + 1} of {arguments.rounds}")
            for side in sides:
                server, postgres, took = await side.client.cost(side.meter, CREATES, creates[side])
                note("CreateVm", side.name, "server", value=server)
                note("CreateVm", side.name, "postgres", value=postgres)
                note("CreateVm", side.name, "took", value=took)
            note("CreateVm", "pgbench", value=pgbench.commit(commits[now], CREATES)[0])
        (made,) = now.cluster.query("SELECT count(*) FILTER (WHERE display_name LIKE 'made-%') AS server, "
            "count(*) FILTER (WHERE display_name LIKE 'pgbench-%') AS pgbench FROM compute.virtual_machines")
        if min(made.values()) < arguments.rounds * CREATES * 0.9:
            raise Wrong(f"VMs that were made: {made}")
    finally:
        for side in sides:
            await side.close()

    print("\nDefault configuration, but for the rate limits, which are out of the way. CPU time, µs per call, of user and system;")
    print(f"median of {arguments.rounds} rounds and their range. Nothing called, a second costs the product {idle[0]:.0f} µs "
          f"and PostgreSQL {idle[1]:.0f} µs.")
    def rows(name):
        for side in sides:
            yield (*read(name, side.name, "server"), f"server, {side.name}")
            yield (*read(name, side.name, "postgres"), f"PostgreSQL, {side.name}")
            yield (*read(name, side.name, "took"), f"wall, {side.name}, with the client's share: no measure of cost")
    for name in calls:
        table(f"{name}: {calls[name][0]} calls, {IN_FLIGHT} in flight", ["µs", "range", "of"], [
            *rows(name),
            (*read(name, "pgbench"), "PostgreSQL, floor: the same SELECT by pgbench, back to back"),
            (*read(name, "in flight"), "PostgreSQL, floor: the same SELECT by tokio-postgres, as many in flight"),
        ])
    table(f"CreateVm: {CREATES} commits, {IN_FLIGHT} in flight, {commits[now].statements} statements", ["µs", "range", "of"], [
        *rows("CreateVm"),
        (*read("CreateVm", "pgbench"), "PostgreSQL, floor: the same statements by pgbench, roles and row-level security too"),
    ])
    table(f"Login: {LOGINS} calls, 2 in flight", ["µs", "range", "of"], [
        (*read("Login", "server"), "server"),
        (*read("Login", "postgres"), "PostgreSQL"),
        (*read("Login", "bare"), "floor: bare Argon2id of the same parameters, in a process of its own"),
        (*read("Login", "took"), "wall, as above"),
    ])
    apart = max(refused.values()) / min(refused.values())
    table(f"Login, refused: {REFUSALS} each, in turn, one in flight; medians {apart:.3f} apart (aim: 1.1)", ["ms", "of"],
          [(f"{milliseconds:.2f}", what) for what, milliseconds in refused.items()])
    middle = {key: statistics.median(values) for key, values in seen.items()}
    ratios = [("GetVm", "PostgreSQL / the SELECT with as many in flight", middle["GetVm", NOW, "postgres"] / middle["GetVm", "in flight"], 3.3),
              ("CreateVm", "PostgreSQL / its statements", middle["CreateVm", NOW, "postgres"] / middle["CreateVm", "pgbench"], 2),
              ("Login", "server / bare Argon2id", middle["Login", "server"] / middle["Login", "bare"], 1.2)]
    if arguments.before:
        for name in [*calls, "CreateVm"]:
            for what, aim in [("server", 0.5), ("postgres", 0.7)]:
                ratios.append((name, f"{what}, now / before", middle[name, NOW, what] / middle[name, BEFORE, what], aim))
    table("ratios", ["of", "what", "ratio", "aim", ""],
          [(name, what, f"{value:.2f}", f"≤ {aim}", "reached" if value <= aim else "missed") for name, what, value, aim in ratios])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is told (3)")
    parser.add_argument("--before", type=Path, help="another release binary, to be measured in turn with this one")
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    arguments = parser.parse_args()
    try:
        with workspace(arguments.keep) as folder:
            asyncio.run(run(arguments, folder))
    except Wrong as wrong:
        print(f"\n{wrong}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
