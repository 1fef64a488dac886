#!/usr/bin/env python3
"""Kills the whole product with -9, again and again, while it makes VMs on a vCenter; in the end each VM is there once.

    tests/chaos/kill.py [--kills 30] [--vms 100] [--seed S]

Some lives end at a crash point, where the process kills itself (src/crash.rs), most at a random time from outside.
Clients ask over REST all the while, and repeat what was not answered with the same requestId. After each kill the job's
stored progress is compared with the vCenter's clone tasks: a clone that nobody stored was started by a call whose
process died before it could write the task's reference down.
"""

import argparse
import collections
import queue
import random
import sys
import threading
import time

from product import Api, Checks, Cluster, Creation, Product, Wrong, say, table, workspace
from vsphere import VSphere

CLIENTS = 6
# A life ends by then, whatever was planned.
LONGEST_LIFE = 15
DRAIN = 180
CLONE_CALL = "vm_create.clone.after_call"
# Lives that end there get so many times the VMs of another: several clones are to be started before one is asked after.
BURST = 4
# Points and the most often that they are passed before the kill.
OTHER_POINTS = [
    ("vm_create.clone.before_call", 8), ("vm_create.power_on.after_call", 4), ("vm_create.clone.before_commit", 8),
    ("vm_create.observe.after_call", 3), ("vm_create.clone.after_commit", 8), ("vm_create.power_on.before_commit", 4),
]
JOBS = """
    SELECT id, state, worker, progress, payload->>'vm' AS vm, available_at < now() + interval '1 second' AS due
    FROM background_jobs.jobs
    WHERE queue = 'vm' AND state IN ('available', 'running')"""


def plan(kills, rng):
    """How each life ends: (point, passes), or (None, seconds after its start)."""
    clone_calls = max(1, -(-kills * 7 // 30))
    others = [OTHER_POINTS[i % len(OTHER_POINTS)] for i in range(kills // 5)]
    lives = [(CLONE_CALL, rng.randint(1, 8)) for _ in range(clone_calls)]
    lives += [(point, rng.randint(1, most)) for point, most in others]
    while len(lives) < kills:
        lives.append((None, rng.uniform(0.2, 7)))
    rng.shuffle(lives)
    return lives


def shares(lives, vms):
    """How many VMs are asked for in each life."""
    weights = [BURST if point == CLONE_CALL else 1 for point, _ in lives]
    upto = [vms * sum(weights[:i]) // sum(weights) for i in range(len(lives) + 1)]
    return [after - before for before, after in zip(upto, upto[1:])]


class Clients:
    """Threads that make VMs as fast as they are let, and do not give up."""

    def __init__(self, api, creations, rng):
        self.api, self.waiting, self.faults = api, list(reversed(creations)), []
        self.allowed = queue.Queue()
        self.answers = collections.Counter()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._work, args=(random.Random(rng.random()),), daemon=True)
                        for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def allow(self, count):
        for _ in range(min(count, len(self.waiting))):
            self.allowed.put(self.waiting.pop())

    def _work(self, rng):
        while not self.over.is_set():
            try:
                creation = self.allowed.get(timeout=0.2)
            except queue.Empty:
                continue
            times = 2 if creation.ask_again else 1
            while times and not self.over.is_set():
                answer = creation.ask(self.api)
                with self.lock:
                    self.answers[answer.brief()] += 1
                if answer.status == 200:
                    times -= 1
                    if not creation.accept(answer):
                        self.faults.append(f"{creation.name}: a repeat named another operation")
                    continue
                if answer.status not in (None, 429, 503, 504):
                    self.faults.append(f"{creation.name}: {answer.brief()}")
                time.sleep(rng.uniform(0.1, 0.5))

    def close(self):
        self.over.set()
        for thread in self.threads:
            thread.join(60)


class Inquest:
    """Finds out where a life ended, from what is left of it."""

    def __init__(self, cluster, vsphere):
        self.cluster, self.vsphere = cluster, vsphere
        # Clones that were started and not stored: task → number of the kill.
        self.unstored, self.tasks = {}, {}

    def let_clones_end(self):
        end = time.monotonic() + 6
        while time.monotonic() < end:
            self.tasks |= self.vsphere.clone_tasks()
            if all(task["state"] in ("success", "error") for task in self.tasks.values()):
                return
            time.sleep(0.2)

    def asked_first(self):
        """Jobs whose clone was started, and which the next life will go on with at once."""
        cloned = {task["name"][-36:] for task in self.tasks.values() if task["name"]}
        count = 0
        for job in self.cluster.query(JOBS):
            progress = job["progress"] or {"step": "clone"}
            started = progress.get("task") or job["vm"] in cloned
            count += bool(job["due"] and progress["step"] == "clone" and started)
        return count

    def hold(self, number, product):
        # What the process had sent when it died is still being done.
        time.sleep(0.3)
        jobs = self.cluster.query(JOBS)
        self.tasks |= self.vsphere.clone_tasks()
        by_vm = {job["vm"]: job for job in jobs}
        stored = {(job["progress"] or {}).get("task") for job in jobs}
        new = []
        for reference, task in self.tasks.items():
            if reference in self.unstored or reference in stored or task["state"] == "error":
                continue
            if task["name"]:
                job = by_vm.get(task["name"][-36:])
                if job is None or (job["progress"] or {"step": "clone"})["step"] != "clone":
                    continue  # it went on from there
            self.unstored[reference] = number
            new.append(reference)
        started = {task["name"][-36:] for ref, task in self.tasks.items() if ref in new and task["name"]}
        # What each job that this life held was at.
        steps, prefix = {}, f"{product.process.pid}-"
        for line in product.log_lines():
            if line.get("message") == "step":
                steps[line["span"]["id"]] = line["step"]
        sites = collections.Counter()
        for job in jobs:
            if job["state"] == "running" and job["worker"].startswith(prefix):
                step = steps.get(job["id"])
                at = f"in {step}" if step else "claimed, before its step"
                sites[at if job["vm"] not in started else "clone started, not stored"] += 1
        running = sum(task["state"] == "running" for task in self.tasks.values())
        return new, sites, running, f"{len(jobs)} jobs open, {running} clones run"


def site_of(new, sites, running, served):
    """A kill from outside, by the most telling of what was at work."""
    if new:
        return "outside: clone started, not stored"
    if not served:
        return "outside: at start-up"
    if not sites:
        return f"outside: between steps, {'clones run' if running else 'no clone runs'}"
    return f"outside: {sites.most_common(1)[0][0]}"


def live(product, clients, inquest, number, ending, share, rng):
    """One life and its end; the row for the report."""
    point, amount = ending
    settings = {}
    if point == CLONE_CALL:
        if rng.random() < 0.75:
            # Otherwise the new process first waits for these, whose starts it knows nothing of.
            inquest.let_clones_end()
        # Clones of earlier lives are asked after first; the kill shall come at one of those that are started then.
        amount += inquest.asked_first()
        settings["worker_task_poll_ms"] = 2000
    if point:
        settings |= {"environment": "testing", "hypervisor_crash_at": point, "hypervisor_crash_after": amount}
    # One client may ask while it is down. The others ask at once where a point is to be passed, else any time.
    down = min(share, rng.randint(0, 1))
    later = [] if point else sorted(rng.uniform(0, amount) for _ in range(share - down))
    clients.allow(down)
    born = time.monotonic()
    product.start(**settings)
    served = product.wait(LONGEST_LIFE if point else amount)
    if point:
        clients.allow(share - down)
    for moment in later:
        product.ended(max(0, moment - (time.monotonic() - born)))
        clients.allow(1)
    if point and product.ended(LONGEST_LIFE):
        how = "point"
        at = [line for line in product.log_lines() if line.get("message", "").startswith("crash point")]
        if not at:
            raise Wrong(f"life {number} ended by itself with {product.process.returncode}; see {product.log}")
    else:
        how = "outside"
        if not point:
            product.ended(max(0, amount - (time.monotonic() - born)))
        if product.process.poll() is not None:
            raise Wrong(f"life {number} ended by itself with {product.process.returncode}; see {product.log}")
        product.kill()
    lived = time.monotonic() - born
    product.ready = None
    if not product.data.joinpath("postgres", "postmaster.pid").exists():
        raise Wrong("the private PostgreSQL did not survive the kill")
    new, sites, running, rest = inquest.hold(number, product)
    site = f"point: {point}" if how == "point" else site_of(new, sites, running, served)
    proof = f"  UNSTORED {', '.join(new)}" if new else ""
    at_work = ", ".join(f"{count} {name}" for name, count in sites.items()) or "no step at work"
    passed = f" (pass {amount})" if how == "point" else ""
    say(f"kill {number:2} after {lived:4.1f}s  {site}{passed}; {rest}; {at_work}{proof}")
    return {"how": how, "site": site, "new": new, "lived": lived}


def drain(api, count):
    """Waits until every operation is done."""
    end, last = time.monotonic() + DRAIN, None
    while time.monotonic() < end:
        operations = api.every("operations", "operations")
        done = sum(operation.get("done", False) for operation in operations)
        if (done, len(operations)) != last:
            say(f"{done} of {len(operations)} operations are done")
            last = done, len(operations)
        if done == len(operations) >= count:
            return operations
        time.sleep(1)
    return api.every("operations", "operations")


def verdict(creations, clients, operations, vms, machines, cluster, inquest, calls, kills):
    """Everything that has to hold; the kill report's last rows."""
    checks, count = Checks(), len(creations)
    answered = [c for c in creations if c.operation]
    checks.that("every request was answered in the end", len(answered) == count, f"{len(answered)} of {count}")
    checks.that("no answer but success and 'come back'", not clients.faults, "; ".join(clients.faults[:3]))
    names = {operation["name"] for operation in operations}
    verbs = collections.Counter(operation["metadata"]["verb"] for operation in operations)
    checks.that(f"{count} operations, all CREATE, those that were answered",
                verbs == {"CREATE": count} and names == {c.operation for c in answered}, dict(verbs))
    good = sum(o.get("done", False) and "error" not in o and o.get("response", {}).get("state") == "RUNNING"
               for o in operations)
    errors = [o["error"]["message"] for o in operations if "error" in o]
    checks.that("every operation is done and succeeded", good == count, f"{good} of {count} {errors[:2]}")
    states = collections.Counter(vm["state"] for vm in vms)
    checks.that(f"{count} VMs over the API, all RUNNING", states == {"RUNNING": count}, dict(states))
    ids = {vm["name"].removeprefix("vms/") for vm in vms}
    checks.that("they are those of the operations", ids == {(c.vm or "").removeprefix("vms/") for c in answered})
    markers = collections.Counter(machine["marker"] for machine in machines)
    checks.that(f"{count} VMs in the vCenter's folder", len(machines) == count, len(machines))
    twice = [marker for marker, times in markers.items() if times > 1]
    checks.that("their markers are the API's VMs, each once", markers.keys() == ids and not twice,
                f"{len(markers)} markers, {len(twice)} twice, {len(markers.keys() - ids)} unknown")
    off = [m for m in machines if m["power"] != "poweredOn" or m["uuid"] != m["marker"]]
    checks.that("all are powered on, instance UUID as the marker", not off, [m["name"] for m in off[:2]] or "")
    jobs = cluster.query("SELECT state, count(*) AS n FROM background_jobs.jobs WHERE queue = 'vm' GROUP BY state")
    checks.that("no job is unfinished or given up", jobs == [{"state": "completed", "n": count}],
                {job["state"]: job["n"] for job in jobs})
    tasks = inquest.tasks.values()
    succeeded = sum(task["state"] == "success" for task in tasks)
    vain = collections.Counter(task["fault"] for task in tasks if task["state"] == "error")
    checks.that("as many clones were made as there are VMs", succeeded == count,
                f"{calls.get('CloneVM_Task', 0)} calls, {succeeded} made, in vain: {dict(vain) or 'none'}")
    adopted = [ref for ref in inquest.unstored
               if (inquest.tasks[ref]["name"] or "")[-36:] in ids and inquest.tasks[ref]["state"] == "success"]
    checks.that("every clone that nobody had stored was adopted", len(adopted) == len(inquest.unstored),
                f"{len(adopted)} of {len(inquest.unstored)}")
    proven = {number for number in inquest.unstored.values()}
    wanted = len(kills) // 10
    checks.that(f"at least {wanted} kills fell between a clone's start and storing its task", len(proven) >= wanted,
                len(proven))
    return checks, adopted


def run(arguments, folder):
    rng = random.Random(arguments.seed)
    lives = plan(arguments.kills, rng)
    vsphere = VSphere(folder, 1, 3)
    product, clients, began = None, None, time.monotonic()
    try:
        settings = vsphere.settings() | {
            "hypervisor_kind": "vcenter", "worker_lease_ms": arguments.lease_ms,
            "worker_heartbeat_ms": arguments.lease_ms // 3, "worker_inventory_seconds": 2}
        product = Product(folder, "release" if arguments.release else "debug", settings)
        cluster = Cluster(product.data)
        api = Api(product)
        product.start()
        if not product.wait(90):
            raise Wrong(f"it does not start; see {product.log}:\n{product.log.read_text()[-2000:]}")
        api.login()
        template = api.template()
        say(f"up with vcsim at {vsphere.ready['url']}; seed {arguments.seed}")
        creations = [Creation(i, f"kill-{i:03}", template, rng) for i in range(arguments.vms)]
        clients = Clients(api, creations, rng)
        # The first life is not one of those that are planned.
        product.kill()
        product.ready = None
        inquest, kills = Inquest(cluster, vsphere), []
        for number, (ending, share) in enumerate(zip(lives, shares(lives, arguments.vms)), 1):
            kills.append(live(product, clients, inquest, number, ending, share, rng))
        clients.allow(arguments.vms)
        killed = time.monotonic()
        product.start()
        if not product.wait(90):
            raise Wrong(f"it does not start after the last kill; see {product.log}")
        end = time.monotonic() + 90
        while time.monotonic() < end and not all(c.operation for c in creations):
            time.sleep(0.2)
        operations = drain(api, arguments.vms)
        drained = time.monotonic()
        clients.close()
        inquest.tasks |= vsphere.clone_tasks()
        vms, machines = api.every("vms", "vms"), vsphere.machines()
        calls, sessions = vsphere.told("calls"), vsphere.told("sessions")
        checks, adopted = verdict(creations, clients, operations, vms, machines, cluster, inquest, calls, kills)

        sites = collections.Counter(kill["site"] for kill in kills)
        rows = [(site, count, sum(bool(kill["new"]) for kill in kills if kill["site"] == site))
                for site, count in sorted(sites.items(), key=lambda item: (item[0].split(":")[0], -item[1]))]
        rows.append(("all", len(kills), sum(bool(kill["new"]) for kill in kills)))
        table("kills", ["where", "kills", "proven between start and storing"], rows)
        late = collections.Counter(creation.tries for creation in creations)
        table("run", ["what", "how much"], [
            ("seed", arguments.seed),
            ("kills, from outside / at a crash point",
             f"{sum(k['how'] == 'outside' for k in kills)} / {sum(k['how'] == 'point' for k in kills)}"),
            ("clones started and not stored / adopted", f"{len(inquest.unstored)} / {len(adopted)}"),
            ("answers to creates", ", ".join(f"{n}× {brief}" for brief, n in clients.answers.most_common())),
            ("creates by number of tries", ", ".join(f"{n}× {t}" for t, n in sorted(late.items()))),
            ("sessions left on the vCenter by killed processes", sessions),
            ("seconds: kills / until all was done / in all",
             f"{killed - began:.0f} / {drained - killed:.0f} / {time.monotonic() - began:.0f}"),
        ])
        return checks.report()
    finally:
        if clients:
            clients.over.set()
        if product:
            product.close()
        vsphere.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="how many (30)")
    parser.add_argument("--vms", type=int, default=100, help="how many to make (100)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6),
                        help="repeats the random choices of an earlier run")
    parser.add_argument("--lease-ms", type=int, default=2500,
                        help="how long a dead worker's jobs wait (2500, so that the next life finds clones that still run)")
    parser.add_argument("--release", action="store_true", help="test target/release instead of target/debug")
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    arguments = parser.parse_args()
    try:
        with workspace(arguments.keep) as folder:
            passed = run(arguments, folder)
    except Wrong as wrong:
        print(f"\n{wrong}")
        passed = False
    print(f"\n{'PASS' if passed else 'FAIL'}  (--kills {arguments.kills} --vms {arguments.vms} --seed {arguments.seed})")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
