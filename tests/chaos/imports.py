#!/usr/bin/env python3
"""Cuts uploads of templates off and kills the whole product with -9 while it imports them; what arrives is what was sent.

    tests/chaos/imports.py [--mib 256] [--cuts 20] [--kills 30] [--imports 10] [--seed S] [--s3]

First a large OVA and a large ISO go all the way to a VM, in pieces, over kills. Then the product is killed again and again
while it checks and imports small ones, and once more while it deletes them. In the end each is READY, the vCenter has those
that are and nothing else, and the store has no object that no row knows; and nothing at all once they are deleted.
"""

import argparse
import collections
import json
import random
import sys
import threading
import time
import uuid

from images import make_iso, make_ova, sum_of
from product import Api, Checks, Cluster, Product, Wrong, say, table, workspace
from s3 import S3
from upload import Upload, put
from vsphere import VSphere

# What is younger is not swept: the least that the setting takes.
SWEEP = 60
# Small files, in MiB.
SMALL = (20, 60)
OPEN_AT_ONCE = 3
# Seconds that a small import takes, with the delays of the vCenter's calls; and its check.
IMPORT, CHECK = 3, 0.2
CALL_DELAY = "100ms"
# Where every third life ends, at a random pass: when a lease is there and not stored, when it is, when all is made.
POINTS = [f"template_import.import.{point}" for point in ("before_commit", "after_commit", "after_call")]
PASSES = 3
LONGEST_LIFE = 8
# Uploads that go on at each kill, and seconds for each of their blocks: some kills fall between an object and its row.
STRAYS, PACE = 2, 0.01
PATIENCE = 240
# A token is good for 15 minutes.
LOGIN_AFTER = 300
JOBS = """
    SELECT payload->>'template' AS template, kind, state, attempt, progress, last_error
    FROM background_jobs.jobs WHERE kind IN ('template_import', 'template_delete') ORDER BY created_at"""


class Run:
    """The product, its vCenter, and what they are asked for."""

    def __init__(self, product, vsphere, rng, checks, lease_seconds, store):
        self.lease_seconds, self.store = lease_seconds, store
        self.product, self.vsphere, self.rng, self.checks = product, vsphere, rng, checks
        self.api, self.cluster = Api(product), Cluster(product.data)
        self.logged_in = None
        # Objects that no row knew when the product had died.
        self.unknown = set()

    def start(self):
        self.product.start()
        if not self.product.wait(90):
            raise Wrong(f"it does not start; see {self.product.log}:\n{self.product.log.read_text()[-2000:]}")
        if self.logged_in is None or time.monotonic() - self.logged_in > LOGIN_AFTER:
            self.api.login()
            self.logged_in = time.monotonic()

    def kill(self):
        if self.product.process.poll() is not None:
            raise Wrong(f"it ended by itself with {self.product.process.returncode}; see {self.product.log}")
        self.product.kill()
        self.product.ready = None
        self.unknown |= self.objects() - set(self.rows())

    def restart(self):
        self.kill()
        self.start()

    def request(self, method, path, body=None):
        """What may be repeated, until it works."""
        return self.api.insist(method, f"/v1/{path}?requestId={self.new_id()}", body).body

    def new_id(self):
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def create(self, image, name):
        return self.request("POST", "templates", {"displayName": name, "kind": image.kind})["name"]

    def begin_import(self, template, image):
        body = {"sha256": image.sha256, "requestId": self.new_id()}
        return self.api.insist("POST", f"/v1/{template}:import", body).body["name"]

    def template(self, name):
        return self.api.insist("GET", f"/v1/{name}").body

    def done(self, operation, seconds=PATIENCE):
        """The end of an operation; none if it does not come."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.api.insist("GET", f"/v1/{operation}").body
            if found.get("done"):
                return found
            time.sleep(0.3)
        return None

    def insist_done(self, what, operation):
        """Whether an operation succeeded; what became of it is told otherwise."""
        found = self.done(operation)
        error = "it does not end" if found is None else found.get("error", "")
        self.checks.that(what, not error, error)
        return not error

    def rows(self):
        return {row["object"]: row for row in self.cluster.query("SELECT * FROM compute.template_parts")}

    def objects(self):
        """Files of the store, those included that have no name yet."""
        paths = (path.relative_to(self.store) for path in self.store.rglob("*") if path.is_file())
        return {str(path) for path in paths if path.parts[0] != S3.OWN}

    def stored(self, template, image):
        """Whether its bytes are those that were sent, in the order that the rows say; and what was seen."""
        rows = [row for row in self.rows().values() if row["template_id"] == template.removeprefix("templates/")]
        rows.sort(key=lambda row: row["first_byte"])
        at, whole = 0, True
        for row in rows:
            whole &= row["first_byte"] == at
            at += row["size_bytes"]
        files = [self.store / row["object"] for row in rows]
        whole &= at == image.size and all(file.stat().st_size == row["size_bytes"] for file, row in zip(files, rows))
        found = sum_of(block for file in files for block in blocks(file))
        return whole and found == image.sha256, f"{len(rows)} objects, {at} bytes, {found[:12]}"

    def copied(self, template, image):
        """The same of the file on the datastore."""
        path = next((path for path in self.vsphere.imported()[2] if template.removeprefix("templates/") in path), None)
        found = path and sum_of(self.vsphere.file(path))
        return found == image.sha256, f"…{(path or 'no file')[-56:]}, {(found or 'none')[:12]}"

    def make_vm(self, template, image):
        body = {"displayName": f"of-{image.name}", "template": template}
        if image.kind == "ISO":
            body |= {"cpuCount": 1, "memoryMib": 1024, "diskGib": 1}
        operation = self.request("POST", "vms", body)
        if self.insist_done(f"{image.name}: a VM is made of it", operation["name"]):
            state = self.template(operation["metadata"]["target"])["state"]
            self.checks.that(f"{image.name}: its VM is RUNNING", state == "RUNNING", state)
        return operation["metadata"]["target"]


def blocks(path):
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


def whole_way(run, image, cuts, kills):
    """A large file from its first byte to a VM; the template and its VM."""
    checks, template = run.checks, run.create(image, image.name)
    places = sorted(run.rng.sample(range(1, image.size), cuts + kills))
    killed = set(run.rng.sample(range(len(places)), kills))
    began = time.monotonic()
    upload = Upload(run.api, template, image, run.rng)
    upload.run([(at, run.restart if number in killed else None) for number, at in enumerate(places)])
    upload.report(time.monotonic() - began)
    seen = upload.answers
    checks.that(f"{image.name}: cut off {cuts} times and killed {kills} times while it came",
                (seen["cut off"], seen["killed"]) == (cuts, kills), f"{seen['cut off']} and {seen['killed']}")
    checks.that(f"{image.name}: no byte is lost that was there, and none there that was not sent", not upload.faults,
                "; ".join(upload.faults[:3]))
    checks.that(f"{image.name}: the store has its bytes, without a gap", *run.stored(template, image))
    began = time.monotonic()
    if run.insist_done(f"{image.name}: it is imported", run.begin_import(template, image)):
        say(f"{image.name}: checked and imported in {time.monotonic() - began:.0f} s")
        found = run.template(template)
        checks.that(f"{image.name}: it is READY with its sum", (found["state"], found["sha256"]) == ("READY", image.sha256),
                    (found["state"], found["sha256"][:12]))
        if image.kind == "ISO":
            checks.that(f"{image.name}: the datastore's file has its SHA-256", *run.copied(template, image))
        vm = run.make_vm(template, image)
        return template, vm
    return template, None


class Import:
    """A small file that is imported over kills."""

    def __init__(self, run, image, number):
        self.image = image
        self.template = run.create(image, f"small-{number:02}")
        Upload(run.api, self.template, image, run.rng).run([])
        self.operation = None

    def begin(self, run):
        self.operation = run.begin_import(self.template, self.image)

    def job(self, run):
        """Its job, as long as there is something to do."""
        jobs = (job for job in run.cluster.query(JOBS) if f"templates/{job['template']}" == self.template)
        return next((job for job in jobs if job["state"] in ("available", "running")), None)

    def is_open(self, run):
        return self.job(run) is not None


def where(run, opened):
    """What the open imports were at when the product died."""
    _, half, files = run.vsphere.imported()
    sites = []
    for one in opened:
        identity, job = one.template.removeprefix("templates/"), one.job(run)
        if job is None:
            continue
        progress = job["progress"] or {"step": "validate"}
        site = progress["step"] if job["attempt"] else "waiting"
        if progress.get("task"):
            site += ", lease stored"
        if identity in half or any(identity in path and path.endswith(".part") for path in files):
            site += ", half made"
        sites.append(site)
    return sites


class Strays:
    """Uploads that a kill ends, and that nobody goes on with."""

    def __init__(self, run, image):
        self.run, self.image, self.templates, self.threads = run, image, [], []

    def begin(self):
        for _ in range(STRAYS):
            self.templates.append(self.run.create(self.image, f"stray-{len(self.templates):03}"))
            work = (self.run.api, self.templates[-1], self.image, 0, self.image.size, PACE)
            self.threads.append(threading.Thread(target=put, args=work, daemon=True))
            self.threads[-1].start()

    def join(self):
        for thread in self.threads:
            thread.join(90)
        self.threads.clear()


def live_to_point(run):
    """A life that ends itself at a point, where it comes to one; how it ended."""
    point = run.rng.choice(POINTS)
    run.product.start(environment="testing", hypervisor_crash_at=point, hypervisor_crash_after=run.rng.randint(1, PASSES))
    if not run.product.ended(LONGEST_LIFE):
        run.kill()
        return "outside"
    if not any(line.get("message", "").startswith("crash point") for line in run.product.log_lines()):
        raise Wrong(f"it ended by itself with {run.product.process.returncode}; see {run.product.log}")
    return point


def live(run, opened, strays, more):
    """A life that begins imports beside those that are open, and ends at a random moment."""
    run.start()
    # An import that was at work waits until its dead worker's lease ends.
    longest = IMPORT + (run.lease_seconds if opened else 0)
    strays.begin()
    while len(opened) < (OPEN_AT_ONCE if run.rng.random() < 0.7 else 1):
        opened.append(more())
        opened[-1].begin(run)
    # A check is over soon: so that it is met, too.
    time.sleep(run.rng.uniform(0, longest if run.rng.random() < 0.6 else CHECK))
    run.kill()
    strays.join()
    return "outside"


def kill_imports(run, images, strays, kills):
    """Kills it while imports are open; the imports, and where each was at the kills."""
    imports = [Import(run, image, number) for number, image in enumerate(images)]
    waiting, opened, sites, fell = list(imports), [], collections.Counter(), 0
    say(f"{len(images)} small files are uploaded")
    run.kill()

    def more():
        # Those that are used up come again, so that the last kills meet some.
        if not waiting:
            imports.append(Import(run, run.rng.choice(images), len(imports)))
            return imports[-1]
        return waiting.pop(0)

    for number in range(1, kills + 1):
        opened = [one for one in opened if one.is_open(run)]
        how = live_to_point(run) if opened and number % 3 == 0 else live(run, opened, strays, more)
        time.sleep(0.2)
        at = where(run, opened)
        fell += bool(at)
        sites.update((how, site) for site in at)
        say(f"kill {number:2}, {how}: {', '.join(at) or 'no import is open'}")
    run.start()
    for one in waiting:
        one.begin(run)
    return imports, sites, fell


def verdict(run, kept, imports):
    """What has to hold when all is done."""
    checks, ends = run.checks, collections.Counter()
    for one in imports:
        found = run.done(one.operation)
        template = run.template(one.template)
        ends[template["state"]] += 1
        if template["state"] != "READY":
            error = (found or {}).get("error", "its operation does not end")
            checks.that(f"{one.image.name}: {one.template} is READY", False, f"{template.get('stateReason')}: {error}")
    checks.that("every template is READY, as all the files are good", set(ends) == {"READY"}, dict(ends))
    # What was cut off by the last kills is taken back by the imports after them, which are done.
    of_kind = collections.defaultdict(set)
    for template, image in kept + [(one.template, one.image) for one in imports]:
        if run.template(template)["state"] == "READY":
            of_kind[image.kind].add(template.removeprefix("templates/"))
    made, half, files = run.vsphere.imported()
    twice = [identity for identity, times in collections.Counter(made).items() if times > 1]
    checks.that("the vCenter's templates are the READY ones, each once", set(made) == of_kind["OVA"] and not twice,
                f"{len(made)} there, {len(of_kind['OVA'])} READY")
    checks.that("no half machine is left", not half, half or 0)
    named = {path[-40:-4] for path in files}
    checks.that("its files are the READY media, each once and whole",
                named == of_kind["ISO"] and len(files) == len(named) and not any(path.endswith(".part") for path in files),
                f"{len(files)} there, {len(of_kind['ISO'])} READY")
    wrong = []
    for one in imports:
        looks = [run.stored, run.copied] if one.image.kind == "ISO" else [run.stored]
        wrong += [(one.template, seen) for right, seen in (look(one.template, one.image) for look in looks) if not right]
    checks.that(f"store and datastore have the {len(imports)} small files as they were sent", not wrong, wrong[:2] or "")
    jobs = collections.Counter(job["state"] for job in run.cluster.query(JOBS))
    checks.that("no job is unfinished or given up", set(jobs) == {"completed"}, dict(jobs))


def check_swept(run, what, wanted):
    """Waits for the sweep: it comes once in so many seconds, and takes what is as old as that."""
    began, first = time.monotonic(), None
    while True:
        objects, rows = run.objects(), set(run.rows())
        unknown, lost = objects - rows, rows - objects
        first = len(unknown) if first is None else first
        if not unknown or time.monotonic() - began > 3 * SWEEP:
            break
        time.sleep(2)
    run.checks.that(f"{what}: the store has what rows know, and only that", not unknown and not lost and wanted(len(objects)),
                    f"{len(objects)} objects, {first} unknown before and {len(unknown)} after {time.monotonic() - began:.0f} s,"
                    f" {len(lost)} lost {sorted(unknown)[:2] or ''}")


def delete_all(run, templates, kills):
    """Deletes them, and kills it meanwhile; nothing is left."""
    operations = {template: run.request("DELETE", template)["name"] for template in templates}
    for _ in range(kills):
        time.sleep(run.rng.uniform(0, 1.5))
        run.restart()
    ends = [run.done(operation) for operation in operations.values()]
    failed = [end["error"]["message"] if end else "it does not end" for end in ends if not end or "error" in end]
    run.checks.that(f"all {len(templates)} templates are deleted, over {kills} kills", not failed, failed[:2] or "")
    left = [found for found in run.api.every("templates", "templates") if found["scope"] == "TENANT"]
    run.checks.that("no template is left", not left, [(found["name"], found["state"]) for found in left[:2]] or 0)
    made, half, files = run.vsphere.imported()
    found = made + half + list(files)
    run.checks.that("nothing of them is left on the vCenter", not found, found[:3] or 0)


def complaints(folder):
    """What all lives have warned of."""
    found = collections.Counter()
    for log in folder.glob("life-*.log"):
        for line in log.read_text(errors="replace").splitlines():
            if not line.startswith("{"):
                found["?", line[:140]] += bool(line)
                continue
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("level") in ("WARN", "ERROR"):
                found[entry["level"], entry.get("message", "")[:140]] += 1
    return [(level, count, message) for (level, message), count in found.most_common(20)]


def run_all(arguments, folder):
    rng, checks, began = random.Random(arguments.seed), Checks(), time.monotonic()
    vsphere = VSphere(folder, 0, 1, "-method-delay", CALL_DELAY)
    product = s3 = None
    try:
        files = folder / "files"
        files.mkdir()
        large = [make_ova(files, "large-ova", arguments.mib), make_iso(files, "large-iso", arguments.mib)]
        small = [(make_iso if number % 2 else make_ova)(files, f"small-{number:02}", rng.randint(*SMALL))
                 for number in range(arguments.imports)]
        say(f"{len(large) + len(small)} files made, {sum(image.size for image in large + small) >> 20} MiB")
        settings = vsphere.settings() | {
            "hypervisor_kind": "vcenter", "worker_lease_ms": arguments.lease_ms, "worker_heartbeat_ms": arguments.lease_ms // 3,
            "worker_inventory_seconds": 2, "worker_sweep_seconds": SWEEP, "worker_address_wait_seconds": 5}
        if arguments.s3:
            s3 = S3(folder)
            settings |= s3.settings
        product = Product(folder, "release" if arguments.release else "debug", settings)
        store = s3.bucket if s3 else product.data / "objects"
        run = Run(product, vsphere, rng, checks, arguments.lease_ms / 1000, store)
        run.start()
        say(f"up with vcsim at {vsphere.ready['url']}; seed {arguments.seed}")
        kept, vms = [], []
        for image in large:
            template, vm = whole_way(run, image, arguments.cuts, 3)
            kept.append((template, image))
            vms.append(vm)
        strays = Strays(run, large[0])
        imports, sites, fell = kill_imports(run, small, strays, arguments.kills)
        killed = time.monotonic()
        verdict(run, kept, imports)
        drained = time.monotonic()
        checks.that("most kills fell while an import was open", fell * 2 > arguments.kills, f"{fell} of {arguments.kills}")
        check_swept(run, "after the kills", lambda count: count > 0)
        calls = vsphere.told("calls")
        templates = [template for template, _ in kept] + [one.template for one in imports] + strays.templates
        delete_all(run, templates, arguments.delete_kills)
        check_swept(run, "after the deletes", lambda count: count == 0)
        states = [run.template(vm)["state"] if vm else "none" for vm in vms]
        checks.that("VMs outlive their templates", states == ["RUNNING", "RUNNING"], states)
        table("open imports at kills", ["kill", "at", "imports"], [(*site, times) for site, times in sorted(sites.items())])
        table("complaints in all logs", ["level", "times", "what"], complaints(folder))
        table("run", ["what", "how much"], [
            ("seed", arguments.seed),
            ("lives", product.lives),
            ("imports / uploads that nobody went on with", f"{len(imports)} / {len(strays.templates)}"),
            ("objects that no row knew at kills", len(run.unknown)),
            ("leases asked for / completed / given back",
             " / ".join(str(calls.get(call, 0)) for call in ("ImportVApp", "HttpNfcLeaseComplete", "HttpNfcLeaseAbort"))),
            ("seconds: until the last kill / until all was done / in all",
             f"{killed - began:.0f} / {drained - killed:.0f} / {time.monotonic() - began:.0f}"),
        ])
        return checks.report()
    except Wrong:
        checks.report()
        table("complaints in all logs", ["level", "times", "what"], complaints(folder))
        raise
    finally:
        if product:
            product.close()
        if s3:
            s3.close()
        vsphere.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256, help="size of the large files (256)")
    parser.add_argument("--cuts", type=int, default=20, help="how often the upload of a large file is cut off (20)")
    parser.add_argument("--imports", type=int, default=10, help="how many small files (10)")
    parser.add_argument("--kills", type=int, default=30, help="how many while small ones are imported (30)")
    parser.add_argument("--delete-kills", type=int, default=3, help="how many while all are deleted (3)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6),
                        help="repeats the random choices of an earlier run")
    parser.add_argument("--lease-ms", type=int, default=1500, help="how long a dead worker's jobs wait (1500)")
    parser.add_argument("--s3", action="store_true", help="store the files in an S3 (versitygw) instead of a folder")
    parser.add_argument("--release", action="store_true", help="test target/release instead of target/debug")
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    arguments = parser.parse_args()
    try:
        with workspace(arguments.keep) as folder:
            passed = run_all(arguments, folder)
    except Wrong as wrong:
        print(f"\n{wrong}")
        passed = False
    said = " ".join(f"--{name} {getattr(arguments, name)}" for name in ("mib", "cuts", "imports", "kills", "seed"))
    print(f"\n{'PASS' if passed else 'FAIL'}  ({said})")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
