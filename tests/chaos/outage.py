#!/usr/bin/env python3
"""Stops PostgreSQL under load and starts it again; meanwhile every call is told to come back, afterwards all goes on.

    tests/chaos/outage.py [--outage 20] [--threads 8]

Half of the threads read, half make VMs on the simulated hypervisor; each create is repeated with its requestId until it is
accepted. Two more look at health and log in. Calls are counted by when they began and ended: before the stop, across a
change, in the outage (begun after the database had stopped, answered before it was started), after it.
"""

import argparse
import collections
import os
import random
import sys
import threading
import time

from product import EMAIL, PASSWORD, Api, Checks, Cluster, Creation, Product, Wrong, get, say, table, workspace

DEADLINE = 10
BEFORE = 6
RECOVERY = 60
AFTER = 5
DRAIN = 180
# A call that was on its way when the database went, or came, may see either; what began a little later may not.
GRACE = 0.2
# Of the pool; four of the simulated hypervisor, two of each of the queue's runners (VMs and mail) and the server's own ear
# come on top.
POOL = 16
CONNECTIONS = POOL + 4 + 2 * 2 + 1


class Load:
    """Threads that call, and note each answer."""

    def __init__(self, product, api, template, threads, rng):
        self.product, self.api, self.template = product, api, template
        self.notes, self.creations = [], []
        self.lock, self.over = threading.Lock(), threading.Event()
        self.rng = rng
        works = [self._read if i % 2 else self._create for i in range(threads)] + [self._health, self._login]
        self.threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self.threads:
            thread.start()

    def _note(self, kind, call):
        began = time.monotonic()
        answer = call()
        with self.lock:
            self.notes.append((kind, began, time.monotonic(), answer))
        return answer

    def _read(self):
        paths = ["/v1/vms?pageSize=20", "/v1/operations?pageSize=20", "/v1/sessions/current", "/v1/templates"]
        while not self.over.is_set():
            for path in paths:
                self._note("read", lambda: self.api.call("GET", path, deadline=DEADLINE))
                time.sleep(0.05)

    def _create(self):
        while not self.over.is_set():
            with self.lock:
                number = len(self.creations)
                creation = Creation(number, f"outage-{number:04}", self.template, self.rng)
                self.creations.append(creation)
            while not creation.operation:
                answer = self._note("create", lambda: creation.ask(self.api, DEADLINE))
                if answer.status == 200:
                    creation.accept(answer)
                elif self.over.is_set():
                    return
                time.sleep(0.3)

    def _health(self):
        while not self.over.is_set():
            ready = self.product.ready
            for role, base in (("gateway", ready["http"]), ("ops", ready["ops"])):
                for path in ("/readyz", "/healthz"):
                    self._note(f"{role} {path}", lambda: get(base, "GET", path, timeout=DEADLINE))
            time.sleep(0.4)

    def _login(self):
        # 10 a minute are allowed.
        body = {"email": EMAIL, "password": PASSWORD, "tenant": "demo"}
        while not self.over.wait(6.5):
            self._note("login", lambda: self.api.call("POST", "/v1/auth:login", body, DEADLINE))

    def answers(self):
        with self.lock:
            return list(self.notes)

    def close(self):
        self.over.set()
        for thread in self.threads:
            thread.join(DEADLINE + 10)


def held(product, cluster):
    """What a process holds: descriptors, threads, memory, connections to the database."""
    process = f"/proc/{product.process.pid}"
    status = dict(line.split(":", 1) for line in open(f"{process}/status"))
    rows = cluster.query("SELECT count(*) AS n FROM pg_stat_activity WHERE backend_type = 'client backend' "
                         "AND pid <> pg_backend_pid()")
    return {"descriptors": len(os.listdir(f"{process}/fd")), "threads": int(status["Threads"]),
            "memory MiB": int(status["VmRSS"].split()[0]) // 1024, "database connections": rows[0]["n"]}


def brief(answer):
    """Distinct answers: with what a client needs to come back, and the reason that readiness gives."""
    if answer.status == 503 and isinstance(answer.body, dict) and "reason" in answer.body:
        return f"503 {answer.body['reason']}"
    text = answer.brief()
    if answer.status == 503:
        retry = answer.detail("RetryInfo")
        text += f", RetryInfo {retry['retryDelay']}" if retry else ", NO RetryInfo"
        text += f", Retry-After {answer.headers['Retry-After']}" if "Retry-After" in answer.headers else ", NO Retry-After"
    return text


def phase_of(note, stopping, stopped, starting, started):
    _, began, ended, _ = note
    if ended <= stopping:
        return "1 before"
    if began >= stopped + GRACE and ended <= starting:
        return "3 in the outage"
    if began >= started:
        return "5 after"
    return "2 as it stops" if began < stopped + GRACE else "4 as it starts"


def run(arguments, folder):
    settings = {"simulated_create_ms": 1500, "log_filter": "info", "database_max_connections": POOL}
    product, load = Product(folder, "release" if arguments.release else "debug", settings), None
    cluster = Cluster(product.data)
    try:
        product.start()
        if not product.wait(90):
            raise Wrong(f"it does not start; see {product.log}:\n{product.log.read_text()[-2000:]}")
        api = Api(product)
        api.login()
        template = api.template()
        load = Load(product, api, template, arguments.threads, random.Random(arguments.seed))
        time.sleep(BEFORE)
        held_before = held(product, cluster)
        say(f"under load; PostgreSQL is stopped for {arguments.outage:g} s")
        stopping = time.monotonic()
        if not cluster.stop("fast"):
            raise Wrong("PostgreSQL does not stop")
        stopped = time.monotonic()
        time.sleep(arguments.outage)
        if product.process.poll() is not None:
            raise Wrong(f"the product ended with {product.process.returncode}; see {product.log}")
        starting = time.monotonic()
        if not cluster.start():
            raise Wrong(f"PostgreSQL does not start again: {(cluster.data / 'server.log').read_text()[-800:]}")
        started = time.monotonic()
        say(f"PostgreSQL runs again after {starting - stopped:.1f} s, its start took {started - starting:.1f} s")
        waited_for = ("read", "create", "gateway /readyz", "ops /readyz")
        firsts = {}
        while time.monotonic() - started < RECOVERY and len(firsts) < len(waited_for):
            for kind, _, ended, answer in load.answers():
                if kind in waited_for and ended > starting + 0.01 and answer.status == 200:
                    firsts.setdefault(kind, ended - started)
            time.sleep(0.05)
        say(f"first successes: {', '.join(f'{k} {v:+.2f} s' for k, v in firsts.items())}")
        time.sleep(AFTER)
        load.close()

        accepted = [c for c in load.creations if c.operation]
        say(f"{len(accepted)} creates were accepted; waiting for them")
        end = time.monotonic() + DRAIN
        while time.monotonic() < end:
            operations = api.every("operations", "operations")
            if all(operation.get("done") for operation in operations):
                break
            time.sleep(1)
        drained = time.monotonic()
        operations = {operation["name"]: operation for operation in operations}
        vms = api.every("vms", "vms")
        # What idles may go; what stays is held.
        time.sleep(3)
        held_after = held(product, cluster)
        jobs = cluster.query("SELECT state, count(*) AS n FROM background_jobs.jobs WHERE queue = 'vm' GROUP BY state")

        notes = load.answers()
        counts, slowest, phases = collections.Counter(), {}, collections.defaultdict(list)
        for note in notes:
            phase = phase_of(note, stopping, stopped, starting, started)
            key = phase, note[0], brief(note[3])
            counts[key] += 1
            slowest[key] = max(slowest.get(key, 0), note[2] - note[1])
            phases[phase].append(note)
        table("answers", ["when", "what", "answer", "count", "slowest"],
              [(*key, count, f"{slowest[key]:.2f}s") for key, count in sorted(counts.items())])
        errors = collections.Counter(
            f"{line.get('level')} {line.get('message')}" for line in product.log_lines()
            if line.get("level") in ("WARN", "ERROR"))
        table("log: warnings and errors", ["count", "what"], [(n, text[:150]) for text, n in errors.most_common(12)])
        table("the process", ["holds", "under load before", "idle after"],
              [(what, held_before[what], held_after[what]) for what in held_before])

        checks = Checks()
        calls = [n for n in phases["3 in the outage"] if n[0] in ("read", "create", "login")]
        kinds = {n[0] for n in calls}
        good = [n for n in calls if n[3].status == 503 and n[3].body["error"]["status"] == "UNAVAILABLE"
                and n[3].detail("RetryInfo") and "Retry-After" in n[3].headers]
        checks.that("in the outage every call gets 503 UNAVAILABLE with RetryInfo and Retry-After",
                    calls and len(good) == len(calls) and kinds == {"read", "create", "login"}, f"{len(good)} of {len(calls)}")
        slow = max((n[2] - n[1] for n in notes if n[0] in ("read", "create", "login")), default=0)
        checks.that(f"every call of the whole run is answered within its deadline of {DEADLINE} s", slow < DEADLINE,
                    f"slowest {slow:.2f}s")
        for phase in ("2 as it stops", "4 as it starts"):
            odd = {brief(n[3]) for n in phases[phase] if n[3].status not in (200, 503)}
            checks.that(f"{phase[2:]} calls get 200 or 503, nothing else", not odd, "; ".join(sorted(odd)))
        for role in ("gateway", "ops"):
            ready = [n for n in phases["3 in the outage"] if n[0] == f"{role} /readyz"]
            reasons = {n[3].body.get("reason", "") for n in ready if n[3].status == 503}
            checks.that(f"{role}: /readyz says 503 and why", ready and all(n[3].status == 503 for n in ready)
                        and all(reasons), "; ".join(sorted(reasons)) or {brief(n[3]) for n in ready})
            alive = [n for n in notes if n[0] == f"{role} /healthz"]
            checks.that(f"{role}: /healthz stays 200", all(n[3].status == 200 for n in alive), len(alive))
        checks.that(f"all kinds of calls succeed again within {RECOVERY} s", len(firsts) == len(waited_for),
                    f"slowest {max(firsts.values(), default=0):+.2f}s" if firsts else "none")
        late = [n for n in phases["5 after"] if n[3].status != 200 and n[1] > started + max(firsts.values(), default=0)]
        checks.that("after that none fails", not late, "; ".join(sorted({brief(n[3]) for n in late})))
        done = sum(operations.get(c.operation, {}).get("response", {}).get("state") == "RUNNING" for c in accepted)
        checks.that("every accepted create is done and its VM RUNNING", done == len(accepted),
                    f"{done} of {len(accepted)}, {drained - started:.0f} s after the start")
        checks.that("no create was lost or done twice", len(operations) == len(vms) == len(accepted),
                    f"{len(operations)} operations, {len(vms)} VMs")
        checks.that("no job is unfinished or given up", jobs == [{"state": "completed", "n": len(accepted)}],
                    {job["state"]: job["n"] for job in jobs})
        # Each waiting caller may have opened one, so the pools may be fuller than before.
        connections = held_after["database connections"]
        others = {when: held["descriptors"] - held["database connections"]
                  for when, held in (("before", held_before), ("after", held_after))}
        checks.that(f"connections stay within the pools' {CONNECTIONS}", connections <= CONNECTIONS, connections)
        checks.that("no other descriptors are left", others["after"] <= others["before"] + 3,
                    f"{others['before']} before, {others['after']} after")
        return checks.report()
    finally:
        if load:
            load.over.set()
        product.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outage", type=float, default=20, help="seconds without a database (20)")
    parser.add_argument("--threads", type=int, default=8, help="that call; half of them make VMs (8)")
    parser.add_argument("--seed", type=int, default=1, help="of the request ids")
    parser.add_argument("--release", action="store_true", help="test target/release instead of target/debug")
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    arguments = parser.parse_args()
    try:
        with workspace(arguments.keep) as folder:
            passed = run(arguments, folder)
    except Wrong as wrong:
        print(f"\n{wrong}")
        passed = False
    print(f"\n{'PASS' if passed else 'FAIL'}  (--outage {arguments.outage:g} --threads {arguments.threads})")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
