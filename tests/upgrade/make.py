#!/usr/bin/env python3
"""Makes the fixture of a release: a database that its binary filled, and what its API answered.

    tests/upgrade/make.py BINARY RELEASE [--keep DATA_FOLDER]

Run it once for each release, with the binary of that release, when the release is made; never again afterwards. It writes
tests/upgrade/RELEASE/dump.sql and facts.json, and tests/upgrade/mod.rs reads every folder that is there. All secrets in them
are of the fixture only: the password, and the master key that the tests seal with. Needs PostgreSQL's client programs."""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "chaos"))
from product import Cluster, get  # noqa: E402

ADMIN, PASSWORD = "admin@example.com", "correct horse battery"
MASTER_KEY = "07" * 32
REASON = "Ticket 4711: the VM does not start"
# Nothing here is about rate limits.
SETTINGS = {
    "admin_email": ADMIN, "admin_password": PASSWORD, "log_format": "json",
    "server_auth_per_minute": 10_000, "server_auth_per_address_per_minute": 10_000, "server_watch_heartbeat_ms": 300,
    "worker_lease_ms": 2_000, "worker_heartbeat_ms": 500, "worker_poll_ms": 200, "worker_task_poll_ms": 50,
    "worker_address_wait_seconds": 1, "simulated_create_ms": 60, "simulated_power_ms": 40, "simulated_shut_down_ms": 60,
}


class Release:
    """The release on one data folder, one life after the other."""

    def __init__(self, binary, folder):
        self.binary, self.folder, self.data, self.processes, self.http = binary, folder, folder / "data", [], None
        self.data.mkdir(mode=0o755)
        (self.data / "master.key").write_text(MASTER_KEY)

    def run(self, *arguments, **settings):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VIRTUALSTACK_")}
        environment |= {f"VIRTUALSTACK_{k.upper()}": str(v) for k, v in (SETTINGS | settings).items()}
        with (self.folder / "log").open("ab") as log:
            self.processes.append(subprocess.Popen(
                [self.binary, *arguments], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=log, start_new_session=True))

    def up(self, **settings):
        """All of it in one process."""
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        self.run("up", "--data-dir", self.data, "--ready-file", ready, "--grpc-addr", "127.0.0.1:0",
                 "--http-addr", "127.0.0.1:0", "--ops-addr", "127.0.0.1:0", **settings)
        until(ready.exists, 120)
        self.http = json.loads(ready.read_text())["http"]

    def serve(self):
        """Server and gateway on the PostgreSQL that a killed one has left: nobody works on jobs."""
        database = f"host={self.data / 'run'} user=virtualstack_login dbname=virtualstack"
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            grpc, http = (f"127.0.0.1:{at.getsockname()[1]}" for at in (one, other))
        self.run("server", database_url=database, server_listen=grpc, master_key=MASTER_KEY, ops_listen="127.0.0.1:0")
        self.run("gateway", gateway_listen=http, gateway_upstream=f"http://{grpc}", ops_listen="127.0.0.1:0")
        self.http = f"http://{http}"
        until(lambda: get(self.http, "GET", "/v1/users/me").status == 401)

    def end(self, number=signal.SIGTERM):
        for process in self.processes:
            process.send_signal(number)
            process.wait(60)
        self.processes.clear()

    def mail(self, address, prefix="vsi_"):
        """The token, of a kind, in the last mail to an address."""
        def found():
            mails = sorted(self.data.glob("mail/*.eml"), key=lambda file: file.stat().st_mtime)
            texts = [file.read_text() for file in mails]
            tokens = [re.findall(rf"^{prefix}\S+", text, re.M) for text in texts if address in text]
            return next((found[0] for found in reversed(tokens) if found), None)
        return until(found)


def until(what, seconds=30):
    """Waits for something, and gives it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise SystemExit(f"waited in vain: {what}")


class Client:
    """Somebody who calls over REST."""

    def __init__(self, release, **headers):
        self.release, self.headers = release, {k.replace("_", "-"): v for k, v in headers.items()}

    def call(self, method, path, body=None, expect=200):
        reply = get(self.release.http, method, f"/v1/{path}", body, self.headers)
        if reply.status != expect:
            raise SystemExit(f"{method} {path} {body}: {reply.status} {reply.body}")
        return reply.body

    def post(self, path, body=None, expect=200):
        return self.call("POST", path, body or {}, expect)

    def done(self, operation):
        """Waits for an operation; how it ended."""
        ended = self.post(f"{operation['name']}:wait", {"timeout": "30s"})
        if not ended.get("done"):
            raise SystemExit(f"not done: {ended}")
        return ended

    def create(self, name, **more):
        return self.post("vms", {"displayName": name, "template": self.template} | more)

    def vm(self, name, **more):
        """A VM that runs."""
        ended = self.done(self.create(name, **more))
        return ended["response"]["name"]

    def do(self, path, **body):
        return self.done(self.post(path, body))

    def watch(self, collection, token=""):
        """The resume token of the first bookmark or the end of the snapshot, and each change before it."""
        request = urllib.request.Request(f"{self.release.http}/v1/{collection}:watch?resumeToken={token}",
                                         headers=self.headers | {"Accept": "text/event-stream"})
        changes = []
        with urllib.request.urlopen(request, timeout=30) as lines:
            while True:
                kind, data = None, None
                while kind is None or data is None:
                    line = lines.readline().decode().rstrip("\n")
                    kind = line[7:] if line.startswith("event: ") else kind
                    data = json.loads(line[6:]) if line.startswith("data: ") else data
                if kind in ("synced", "bookmark"):
                    return data["resumeToken"], changes
                changes.append([kind, data["vm"] if collection == "vms" else data["operation"]])


def login(release, email, tenant, password=PASSWORD):
    tokens = Client(release).post("auth:login", {"email": email, "password": password, "tenant": tenant})
    client = Client(release, Authorization=f"Bearer {tokens['accessToken']}")
    client.refresh = tokens["refreshToken"]
    return client


LOGINS = [("ada@example.com", "demo"), ("ada@example.com", "acme"), ("carol@example.com", "demo"), ("bob@example.com", "demo"),
          ("gone@example.com", "demo"), ("nobody@example.com", "demo"), ("admin@closed.example.com", "closed"),
          ("admin@left.example.com", "left"), (ADMIN, "provider")]


def reason(release, email, tenant):
    """Why somebody cannot sign in; empty where they can."""
    reply = get(release.http, "POST", "/v1/auth:login", {"email": email, "password": PASSWORD, "tenant": tenant})
    return (reply.detail("ErrorInfo") or {}).get("reason", "")


def changes(seen):
    """A watch's changes in short: what became of what, and which state of it that was."""
    short = []
    for kind, resource in seen:
        state = resource.get("state") or ("done" if resource.get("done") else "open")
        short.append(f"{kind} {resource['name']} {state} {resource.get('etag', '')}".strip())
    return short


def people(release, admin, operator, facts):
    """Users, roles, keys, invitations, sessions and tenants, in each of their states."""
    clerk = admin.post("roles", {"displayName": "clerk", "description": "Reads VMs, and starts them.",
                                 "permissions": ["vm:read", "vm:start", "operation:read"]})["name"]
    unused = admin.post("roles", {"displayName": "unused", "permissions": ["vm:read"]})["name"]
    admin.call("DELETE", unused)
    roles = {role["displayName"]: role["name"] for role in admin.call("GET", "roles")["roles"]}
    admin.post("users", {"email": "ada@example.com", "displayName": "Ada", "password": PASSWORD, "roles": [clerk]})
    bob = admin.post("users", {"email": "bob@example.com", "displayName": "Bob", "password": PASSWORD,
                               "roles": [roles["viewer"]]})["name"]
    admin.post(f"{bob}:deactivate")
    gone = admin.post("users", {"email": "gone@example.com", "displayName": "Gone", "password": PASSWORD,
                                "roles": [roles["viewer"]]})["name"]
    admin.call("DELETE", gone)
    for guest in ("carol", "dave", "erin"):
        admin.post("invitations", {"email": f"{guest}@example.com", "role": roles["viewer"]})
        facts["tokens"][guest] = release.mail(f"{guest}@example.com")
    Client(release).post("invitations:accept", {"token": facts["tokens"].pop("carol"), "displayName": "Carol", "password": PASSWORD})
    invitations = {one["email"]: one["name"] for one in admin.call("GET", "invitations")["invitations"]}
    admin.post(f"{invitations['dave@example.com']}:revoke")
    Client(release).post("auth:requestPasswordReset", {"email": "ada@example.com"})
    facts["tokens"]["reset"] = release.mail("ada@example.com", "vsp_")

    keys = {}
    for name in ("reader", "rotated", "deleted"):
        keys[name] = admin.post("apiKeys", {"displayName": name, "permissions": ["vm:read", "operation:read"],
                                            "allowedCidrs": ["127.0.0.0/8", "::1/128"]})
    admin.call("DELETE", keys["deleted"]["name"])
    keys["second"] = admin.post(f"{keys['rotated']['name']}:rotate")
    facts["keys"] = {name: key["secret"] for name, key in keys.items()}
    Client(release, X_API_Key=facts["keys"]["reader"]).call("GET", "vms")

    for slug in ("acme", "closed", "left"):
        operator.post("tenants", {"tenant": {"slug": slug, "displayName": slug.title()},
                                  "adminEmail": f"admin@{slug}.example.com", "adminPassword": PASSWORD})
    operator.call("PATCH", "tenants/acme/quota", {"limits": {"vms": 2, "vcpus": 8, "memoryMib": 16384, "diskGib": 400}})
    operator.call("PATCH", "tenants/demo/quota", {"limits": {"vms": 40, "snapshots": 9}})
    operator.post("tenants/closed:suspend")
    operator.call("DELETE", "tenants/left")


def machines(admin, facts):
    """VMs in each state that stays, and operations that ended in each way."""
    templates = admin.call("GET", "templates")["templates"]
    admin.template = next(one["name"] for one in templates if one["kind"] == "OVA")
    iso = next(one["name"] for one in templates if one["kind"] == "ISO")
    facts["request"] = {"displayName": "web", "template": admin.template, "description": "The first one\nof all: ä",
                        "labels": {"tier": "front", "env": "prod"}}
    facts["requestId"] = str(uuid.uuid4())
    first = admin.post(f"vms?requestId={facts['requestId']}", facts["request"])
    admin.done(first)
    facts["requestOperation"] = first["name"]
    web = first["metadata"]["target"]
    admin.done(admin.call("PATCH", web, {"description": "At once"}))
    admin.done(admin.call("PATCH", web, {"cpuCount": 4, "memoryMib": 8192}))
    restart = admin.done(admin.call("PATCH", web, {"cpuCount": 2}))
    assert "RESTART_NEEDED" in json.dumps(restart), restart
    admin.done(admin.call("PATCH", f"{web}?allowRestart=true", {"cpuCount": 2}))
    for verb in ("restart", "reset", "openConsole"):
        admin.do(f"{web}:{verb}")

    stopped = admin.vm("stopped", template=iso, cpuCount=2, memoryMib=2048, diskGib=20)
    admin.do(f"{stopped}:stop", graceful=True, timeout="60s")
    suspended = admin.vm("suspended")
    admin.do(f"{suspended}:suspend")
    admin.do(f"{admin.vm('paused')}:suspend")
    deleted = admin.vm("deleted")
    admin.done(admin.call("DELETE", deleted))
    back = admin.vm("back")
    admin.done(admin.call("DELETE", back))
    admin.do(f"{back}:undelete")
    purged = admin.vm("purged")
    facts["purged"] = purged
    facts["tombstone"] = admin.done(admin.call("DELETE", f"{purged}?force=true"))["name"]

    saved = admin.vm("saved")
    snapshots = [admin.do(f"{saved}/snapshots", displayName=name, description="kept")["response"]["name"]
                 for name in ("first", "second", "third")]
    admin.do(f"{snapshots[0]}:revert")
    admin.done(admin.call("DELETE", snapshots[2]))
    forgotten = admin.vm("forgotten")
    admin.call("DELETE", admin.do(f"{forgotten}:stop")["name"])
    return {"web": web, "stopped": stopped, "suspended": suspended, "deleted": deleted, "back": back, "saved": saved,
            "forgotten": forgotten, "leaving": admin.vm("leaving")}


def unfinished(release, admin, vms, facts):
    """Operations that are open when the release is killed, and how each has to end."""
    release.up(simulated_create_ms=3_000)
    cancelled = admin.create("cancelled")
    time.sleep(0.3)
    admin.post(f"{cancelled['name']}:cancel")
    ended = admin.post(f"{cancelled['name']}:wait", {"timeout": "30s"})
    assert ended["error"]["code"] == 1, ended
    release.end()
    # The worker polls tasks so seldom that all of these operations still wait for theirs.
    release.up(simulated_create_ms=500, simulated_power_ms=500, simulated_shut_down_ms=500, worker_task_poll_ms=3_000, mail_kind="smtp",
               mail_smtp_host="127.0.0.1", mail_smtp_port=9, mail_smtp_security="none")
    making, doomed = admin.create("making", cpuCount=1), admin.create("doomed")
    starting = admin.post(f"{vms['stopped']}:start")
    saving = admin.post(f"{vms['saved']}/snapshots", {"displayName": "fourth"})
    growing = admin.call("PATCH", vms["back"], {"cpuCount": 3})
    going = admin.call("DELETE", vms["suspended"])
    leaving = admin.post(f"{vms['leaving']}:stop", {"graceful": True, "timeout": "60s"})
    # The first who reads this operation gets the ticket. That has to be the test.
    console = admin.post(f"{vms['web']}:openConsole")["name"]
    shown = "operations?filter=metadata.verb%3DOPEN_CONSOLE"
    until(lambda: all(one["done"] for one in admin.call("GET", shown)["operations"]))
    facts["console"] = console
    roles = {role["displayName"]: role["name"] for role in admin.call("GET", "roles")["roles"]}
    admin.post("invitations", {"email": "frank@example.com", "role": roles["viewer"]})
    until(lambda: Cluster(release.data).query("SELECT 1 FROM background_jobs.jobs WHERE last_error LIKE '%relay%'"))
    release.end(signal.SIGKILL)
    release.serve()
    queued = admin.call("DELETE", f"{doomed['metadata']['target']}?force=true")
    facts["unfinished"] = {
        making["name"]: "RUNNING", starting["name"]: "RUNNING", saving["name"]: "READY", growing["name"]: "STOPPED",
        going["name"]: "DELETED", leaving["name"]: "STOPPED", doomed["name"]: "CANCELLED", queued["name"]: "DELETED",
    }
    for name in facts["unfinished"]:
        assert not admin.call("GET", name)["done"], name
    facts["doomed"], facts["unsent"] = doomed["metadata"]["target"], "frank@example.com"


def answers(admin, operator, acme, unread):
    """All that clients can read, by the path that they read it at."""
    read = {"admin": {}, "operator": {}, "acme": {}}
    clients = {"admin": admin, "operator": operator, "acme": acme}

    def ask(who, path):
        read[who][path] = clients[who].call("GET", path)
        return read[who][path]

    for name in [vm["name"] for vm in ask("admin", "vms?showDeleted=true&pageSize=1000").get("vms", [])]:
        ask("admin", name)
        ask("admin", f"{name}/events?pageSize=1000")
        for snapshot in ask("admin", f"{name}/snapshots?pageSize=1000").get("snapshots", []):
            ask("admin", snapshot["name"])
    for operation in ask("admin", "operations?pageSize=1000")["operations"]:
        if operation["name"] != unread:
            ask("admin", operation["name"])
    for path in ("vms?filter=state%3DRUNNING", "operations?filter=metadata.verb%3DCREATE", "quota", "users/me", "users?pageSize=1000",
                 "roles?pageSize=1000", "invitations?pageSize=1000", "apiKeys?pageSize=1000"):
        ask("admin", path)
    for path in ("tenants?pageSize=1000&showDeleted=true", "tenants/demo/quota", "tenants/acme/quota", "tenants/closed", "tenants/left"):
        ask("operator", path)
    for path in ("vms", "operations", "quota", "tenants/current"):
        ask("acme", path)
    return read


# Keeps each step of each job, since a finished job shows its last one only. The dump has nothing of this.
RECORD = """CREATE TABLE public.recorded (job uuid, kind text, payload jsonb, progress jsonb);
CREATE FUNCTION public.record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    INSERT INTO public.recorded VALUES (NEW.id, NEW.kind, NEW.payload, NEW.progress); RETURN NULL; END $$;
CREATE TRIGGER record AFTER INSERT OR UPDATE ON background_jobs.jobs FOR EACH ROW EXECUTE FUNCTION public.record()"""
FORGET = "DROP TRIGGER record ON background_jobs.jobs; DROP FUNCTION public.record(); DROP TABLE public.recorded"


def recorded(cluster):
    """One job for each kind, verb, step and form of that step."""
    rows = cluster.query("SELECT DISTINCT kind, payload, progress FROM public.recorded ORDER BY kind, payload, progress")
    kept = {}

    def shape(value, key=""):
        if isinstance(value, dict):
            return {k: shape(v, k) for k, v in value.items()}
        return value if key in ("step", "phase") else type(value).__name__

    for row in rows:
        kept.setdefault(json.dumps([row["kind"], row["payload"].get("verb"), shape(row["progress"])], sort_keys=True), row)
    cluster.run(FORGET)
    return list(kept.values())


def dump(data, file):
    """The database as SQL that one call of a driver can run, for any PostgreSQL from 15 on."""
    cluster = Cluster(data)
    at = cluster.query("SELECT to_json(now()) AS at")[0]["at"]
    text = subprocess.run(
        [cluster.binaries / "pg_dump", "-h", cluster.sockets, "-U", "postgres", "-d", "virtualstack", "--inserts",
         "--rows-per-insert=200", "--no-owner", "--no-tablespaces"],
        check=True, capture_output=True, text=True).stdout
    kept = [line for line in text.splitlines()
            if not line.startswith("\\") and not re.match(r"SET (transaction_timeout|default_table_access_method)\b", line)
            and not (line.startswith("--") or line == "")]
    file.write_text(f"-- Made by tests/upgrade/make.py; now() was {at}\n" + "\n".join(kept) + "\n")
    return at


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("binary", type=Path)
    arguments.add_argument("release")
    arguments.add_argument("--keep", type=Path, help="where to leave the data folder, to try it by hand")
    given = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="virtualstack-upgrade-"))
    folder.chmod(0o755)
    release = Release(given.binary.resolve(), folder)
    facts = {"tokens": {}}
    try:
        release.up()
        Cluster(release.data).run(RECORD)
        admin, operator = login(release, ADMIN, "demo"), login(release, ADMIN, "provider")
        until(lambda: admin.call("GET", "templates").get("templates"))
        begun = {collection: admin.watch(collection)[0] for collection in ("vms", "operations")}
        people(release, admin, operator, facts)
        vms = machines(admin, facts)
        # A second tenant with work, and an operator in it.
        acme = login(release, "admin@acme.example.com", "acme")
        acme.template = admin.template
        acme.call("PATCH", "tenants/current", {"settings": {"invitationDays": 3, "apiKeyMaxDays": 90}})
        acme.vm("web")
        entered = operator.post("auth:switchTenant", {"tenant": "acme", "reason": REASON})
        facts["refresh"] = {"support": entered["refreshToken"], "member": login(release, "ada@example.com", "demo").refresh}

        release.end()
        release.up(simulated_task_fault_rate=1)
        broken = admin.done(admin.create("broken"))
        assert "error" in broken, broken
        failed = admin.do(f"{vms['web']}:suspend")
        assert "error" in failed, failed
        release.end()
        unfinished(release, admin, vms, facts)
        facts["answers"] = answers(admin, operator, acme, facts["console"])
        facts["logins"] = [[email, tenant, reason(release, email, tenant)] for email, tenant in LOGINS]
        facts["watches"] = {collection: {"token": token, "changes": changes(admin.watch(collection, token)[1])}
                            for collection, token in begun.items()}
        facts["watches"] |= {f"{collection}, caught up": {"token": admin.watch(collection, token)[0], "changes": []}
                             for collection, token in begun.items()}
        facts["page"] = admin.call("GET", "vms?pageSize=2")["nextPageToken"]
        release.end()
        facts["jobs"] = recorded(Cluster(release.data))
        target = HERE / given.release
        target.mkdir(exist_ok=True)
        facts["dumpedAt"] = dump(release.data, target / "dump.sql")
        (target / "facts.json").write_text(json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    finally:
        release.end(signal.SIGKILL)
        cluster = Cluster(release.data)
        if cluster.is_running():
            cluster.stop("fast")
        if given.keep:
            shutil.rmtree(given.keep, ignore_errors=True)
            shutil.move(release.data, given.keep)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
