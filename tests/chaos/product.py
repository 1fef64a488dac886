"""The product as a whole, for programs that break it: starts it, kills it, asks it over REST, looks into its database."""

import contextlib
import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools" / "bin"
EMAIL, PASSWORD = "admin@virtualstack.local", "correct-horse-battery-staple"

START = time.monotonic()


def say(text):
    print(f"{time.monotonic() - START:7.1f}s  {text}", flush=True)


class Wrong(Exception):
    """The run cannot go on."""


@contextlib.contextmanager
def workspace(keep):
    """A folder that PostgreSQL's unprivileged user can enter; gone at the end, also after a signal."""

    def end(number, _frame):
        raise Wrong(f"ended by {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    folder = Path(tempfile.mkdtemp(prefix="virtualstack-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        if keep:
            say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def target(profile):
    """Where cargo builds."""
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / profile


def binary(folder, profile):
    """A copy of the built program, so that a build meanwhile does not change what is tested."""
    built = target(profile) / "virtualstack"
    if not built.is_file():
        raise Wrong(f"{built} is not there; run it by make, which builds it")
    return shutil.copy2(built, folder / "virtualstack")


class Product:
    """`virtualstack up` on a data folder: one life after the other, the last one ended by `close`."""

    def __init__(self, folder, profile, settings):
        self.folder, self.data = folder, folder / "data"
        self.ready_file = folder / "ready.json"
        self.binary = binary(folder, profile)
        self.settings = settings
        self.process, self.ready, self.lives = None, None, 0
        self.log = None

    def start(self, **settings):
        """Starts it; `wait` tells when it serves. Keys are those of the settings, as VIRTUALSTACK_ variables have them."""
        assert self.process is None or self.process.poll() is not None
        self.ready_file.unlink(missing_ok=True)
        self.ready = None
        self.lives += 1
        self.log = self.folder / f"life-{self.lives}.log"
        variables = {
            "admin_email": EMAIL, "admin_password": PASSWORD, "log_format": "json",
            "log_filter": "info,virtualstack_worker=debug,diesel_migrations=warn",
        } | self.settings | settings
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VIRTUALSTACK_")}
        environment |= {f"VIRTUALSTACK_{key.upper()}": str(value) for key, value in variables.items()}
        command = [self.binary, "up", "--data-dir", self.data, "--ready-file", self.ready_file]
        for role in ("grpc", "http", "ops"):
            command += [f"--{role}-addr", "127.0.0.1:0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=log, start_new_session=True)

    def serve(self, address, url):
        """Starts the server alone, on a PostgreSQL that runs."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VIRTUALSTACK_")}
        variables = self.settings | {
            "database_url": url, "server_listen": address, "ops_listen": "127.0.0.1:0",
            "master_key_file": self.data / "master.key",
        }
        environment |= {f"VIRTUALSTACK_{key.upper()}": str(value) for key, value in variables.items()}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([self.binary, "server"], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)

    def wait(self, seconds):
        """Waits until it serves; false if it ended before, or the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            if self.ready_file.exists():
                self.ready = json.loads(self.ready_file.read_text())
                return True
            time.sleep(0.02)
        return False

    def ended(self, seconds):
        """Waits for its end; whether it came."""
        try:
            self.process.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            return False

    def kill(self):
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def base(self):
        """Where REST is, or none while it is down."""
        ready = self.ready
        return ready and ready["http"]

    def log_lines(self):
        """What the present life has logged."""
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def close(self):
        """Ends it, and its PostgreSQL whatever became of it."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            if not self.ended(45):
                say("it does not stop on SIGTERM; killed")
                self.kill()
        cluster = Cluster(self.data)
        if cluster.is_running():
            cluster.stop("immediate")


class Cluster:
    """The private PostgreSQL of a data folder."""

    def __init__(self, data):
        self.data, self.sockets = data / "postgres", data / "run"
        found = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True).stdout.strip()
        folders = [Path(found)] if found else []
        folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        self.binaries = next((f for f in folders if (f / "pg_ctl").is_file()), None)
        if self.binaries is None:
            raise Wrong("no PostgreSQL server is installed")

    def _pg_ctl(self, *arguments):
        owner = {}
        if os.geteuid() == 0 and self.data.exists():
            owner = {"user": self.data.stat().st_uid, "group": self.data.stat().st_gid, "extra_groups": []}
        return subprocess.run(
            [self.binaries / "pg_ctl", arguments[0], "-D", self.data, *arguments[1:]], cwd="/", **owner,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def is_running(self):
        return (self.data / "postmaster.pid").exists() and self._pg_ctl("status")

    def stop(self, mode):
        return self._pg_ctl("stop", "-m", mode, "-w", "-t", "30")

    def start(self):
        """Starts it again with the options that it had."""
        options = shlex.split((self.data / "postmaster.opts").read_text())[1:]
        at = options.index("-D")
        del options[at:at + 2]
        return self._pg_ctl("start", "-w", "-t", "60", "-l", self.data / "server.log", "-o", shlex.join(options))

    def query(self, sql):
        """Rows as dicts."""
        command = ["psql", "-h", self.sockets, "-U", "postgres", "-d", "virtualstack", "-XAtq", "-c",
                   f"SELECT coalesce(json_agg(row), '[]') FROM ({sql}) row"]
        for _ in range(5):
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
            if done.returncode == 0:
                return json.loads(done.stdout)
            time.sleep(0.2)
        raise Wrong(f"psql: {done.stderr.strip()}")

    def run(self, sql):
        """Does something as superuser."""
        command = ["psql", "-h", self.sockets, "-U", "postgres", "-d", "virtualstack", "-Xq", "-v", "ON_ERROR_STOP=1", "-c", sql]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Wrong(f"psql: {done.stderr.strip()}")


class Answer:
    """What came back: a status with its JSON, or no answer at all."""

    def __init__(self, status, headers, body, error=""):
        self.status, self.headers, self.body, self.error = status, headers, body, error

    def detail(self, kind):
        details = self.body.get("error", {}).get("details", []) if isinstance(self.body, dict) else []
        return next((d for d in details if d.get("@type", "").endswith(f"google.rpc.{kind}")), None)

    def brief(self):
        """Enough to count distinct answers by."""
        if self.status is None:
            return f"no answer: {self.error}"
        if self.status < 400:
            return str(self.status)
        error = self.body.get("error", {}) if isinstance(self.body, dict) else {}
        if not isinstance(error, dict):
            error = {}
        reason = (self.detail("ErrorInfo") or {}).get("reason", "no ErrorInfo")
        return f"{self.status} {error.get('status', '')} {reason}"


def get(base, method, path, body=None, headers=None, timeout=30):
    """One HTTP call on a connection of its own."""
    if base is None:
        return Answer(None, {}, None, "down")
    where = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=timeout)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"} | (headers or {}))
        reply = connection.getresponse()
        text = reply.read()
        try:
            parsed = json.loads(text) if text else {}
        except ValueError:
            parsed = {"text": text.decode(errors="replace")}
        return Answer(reply.status, reply.headers, parsed)
    except (OSError, http.client.HTTPException) as error:
        return Answer(None, {}, None, type(error).__name__)
    finally:
        connection.close()


class Api:
    """REST as the first admin, in the demo tenant."""

    def __init__(self, product):
        self.product, self.token = product, None

    def login(self, seconds=60):
        body = {"email": EMAIL, "password": PASSWORD, "tenant": "demo"}
        self.token = self.insist("POST", "/v1/auth:login", body, seconds=seconds).body["accessToken"]

    def call(self, method, path, body=None, deadline=30):
        """One call; the client waits a little longer than the deadline that it names."""
        headers = {"Grpc-Timeout": f"{int(deadline * 1000)}m"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        return get(self.product.base(), method, path, body, headers, deadline + 5)

    def insist(self, method, path, body=None, seconds=60):
        """Repeats a call until it works."""
        end = time.monotonic() + seconds
        while True:
            answer = self.call(method, path, body)
            if answer.status == 200:
                return answer
            if time.monotonic() > end:
                raise Wrong(f"{method} {path}: {answer.brief()}")
            time.sleep(0.5)

    def every(self, collection, field):
        """A whole collection, page by page."""
        found, token = [], ""
        while True:
            page = self.insist("GET", f"/v1/{collection}?pageSize=1000&pageToken={urllib.parse.quote(token)}").body
            found += page[field]
            token = page.get("nextPageToken", "")
            if not token:
                return found

    def template(self, seconds=60):
        """A template to make VMs from, once the worker has published it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.insist("GET", "/v1/templates").body["templates"]
            for template in found:
                if template["kind"] == "OVA":
                    return template["name"]
            time.sleep(0.5)
        raise Wrong("no template was published")


class Creation:
    """A client's wish for one VM: repeated with one requestId until it is answered, however often that takes."""

    def __init__(self, number, name, template, rng):
        self.number, self.name, self.template = number, name, template
        self.request = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        # Some clients lose the reply, and ask again.
        self.ask_again = rng.random() < 0.3
        self.operation, self.vm, self.tries = None, None, 0
        self.accepted_at = None

    def ask(self, api, deadline=30):
        self.tries += 1
        body = {"displayName": self.name, "template": self.template}
        return api.call("POST", f"/v1/vms?requestId={self.request}", body, deadline)

    def accept(self, answer):
        """Takes a 200; false if it is not the operation that an earlier one named."""
        name, target = answer.body["name"], answer.body["metadata"]["target"]
        if self.operation is None:
            self.operation, self.vm, self.accepted_at = name, target, time.monotonic()
        return (name, target) == (self.operation, self.vm)


def table(title, columns, rows):
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    print(f"\n{title}")
    for row in [columns, ["-" * width for width in widths], *rows]:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    sys.stdout.flush()


class Checks:
    """What has to hold, and whether it did."""

    def __init__(self):
        self.rows = []

    def that(self, what, holds, seen=""):
        self.rows.append(("ok" if holds else "FAILED", what, seen))

    def report(self):
        table("checks", ["", "what", "seen"], self.rows)
        return all(row[0] == "ok" for row in self.rows)
