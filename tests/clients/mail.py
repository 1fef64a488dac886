#!/usr/bin/env python3
"""Mails through Mailpit, an SMTP server that shares no code with the product: STARTTLS with a certificate that is checked, a login,
a relay that puts off, one that refuses; and what members are told of, told and mailed once though the product is killed meanwhile.
"""

import contextlib
import random
import socket
import subprocess
import sys
import time
import urllib.parse
from datetime import datetime, timedelta, timezone

from product import EMAIL, PASSWORD, TOOLS, Api, Cluster, Product, Wrong, get, say, workspace

ACCOUNT, SECRET = "virtualstack", "a-password-of-the-relay"
SEED = 12
# Members who are told by a broadcast.
MANY = 40


def insist(what, met, seconds=60):
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not (found := met()):
        if time.monotonic() > end:
            raise Wrong(f"not within {seconds} s: {what}")
        time.sleep(0.1)
    return found


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def authority(folder, name):
    openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    return folder / f"{name}.pem"


def certificate(folder, signed_by):
    """A certificate for localhost."""
    (folder / "names").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    openssl(folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
            "-keyout", "relay.key", "-out", "relay.csr")
    openssl(folder, "x509", "-req", "-in", "relay.csr", "-CA", f"{signed_by}.pem", "-CAkey", f"{signed_by}.key",
            "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "relay.pem")


def free_port():
    """Mailpit does not tell which port it took."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Relay:
    """Mailpit."""

    def __init__(self, folder):
        (folder / "accounts").write_text(f"{ACCOUNT}:{SECRET}\n")
        self.log, self.smtp, port = folder / "relay.log", free_port(), free_port()
        self.http = f"http://127.0.0.1:{port}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [TOOLS / "mailpit", "--smtp", f"127.0.0.1:{self.smtp}", "--listen", f"127.0.0.1:{port}", "--smtp-require-starttls", "--enable-chaos",
                 "--smtp-tls-cert", folder / "relay.pem", "--smtp-tls-key", folder / "relay.key", "--smtp-disable-rdns",
                 "--smtp-auth-file", folder / "accounts", "--database", folder / "relay.db", "--disable-version-check"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def wait(self):
        insist("Mailpit serves", lambda: get(self.http, "GET", "/readyz").status == 200)

    def mails(self, address):
        """What came to an address, whole."""
        query = urllib.parse.quote(f'to:"{address}"')
        found = get(self.http, "GET", f"/api/v1/search?limit=200&query={query}").body["messages"]
        return [get(self.http, "GET", f"/api/v1/message/{one['ID']}").body for one in found]

    def troubles(self, code=None):
        """Has it refuse all recipients, or none."""
        trigger = {"ErrorCode": code or 451, "Probability": 100 if code else 0}
        answer = get(self.http, "PUT", "/api/v1/chaos", {"Recipient": trigger})
        assert answer.status == 200, answer.body

    def close(self):
        self.process.terminate()
        self.process.wait(20)


class Run:
    def __init__(self, folder):
        self.ours, self.foreign = authority(folder, "ours"), authority(folder, "foreign")
        certificate(folder, "ours")
        self.relay = Relay(folder)
        self.password = folder / "password"
        self.password.write_text(SECRET)
        self.product, self.folder = None, folder

    def begin(self):
        self.relay.wait()
        settings = {
            "mail_kind": "smtp", "mail_smtp_host": "localhost", "mail_smtp_port": self.relay.smtp, "mail_timeout_seconds": 10,
            "mail_smtp_username": ACCOUNT, "mail_smtp_password_file": self.password, "mail_smtp_ca_file": self.ours,
            "worker_notify_seconds": 1,
        }
        self.product = Product(self.folder, "debug", settings)

    def up(self, **settings):
        self.product.start(**settings)
        if not self.product.wait(90):
            raise Wrong(f"it does not start: {self.product.log.read_text()[-2000:]}")
        api = Api(self.product)
        api.login()
        return api

    def down(self):
        self.product.process.terminate()
        if not self.product.ended(45):
            raise Wrong("it does not stop")

    def invite(self, api, address):
        roles = api.insist("GET", "/v1/roles").body["roles"]
        viewer = next(role["name"] for role in roles if role["displayName"] == "viewer")
        api.insist("POST", "/v1/invitations", {"email": address, "role": viewer})

    def job(self):
        """The newest job that sends a mail."""
        rows = Cluster(self.product.data).query(
            "SELECT state, attempt FROM background_jobs.jobs WHERE queue = 'mail' ORDER BY id DESC LIMIT 1")
        return rows[0]

    def only(self, address):
        mails = insist(f"a mail to {address}", lambda: self.relay.mails(address))
        time.sleep(1)
        assert len(self.relay.mails(address)) == 1, f"{address} got {len(self.relay.mails(address))} mails"
        return mails[0]

    def tried_twice(self):
        insist("two tries", lambda: self.job()["attempt"] >= 2 and self.job()["state"] != "completed")

    def conversations(self):
        api = self.up(mail_smtp_ca_file=self.foreign)
        self.invite(api, "ada@example.com")
        self.tried_twice()
        assert self.relay.mails("ada@example.com") == []
        say("a relay with a certificate of nobody whom we trust gets no mail")
        self.down()
        api = self.up()
        mail = self.only("ada@example.com")
        assert mail["Username"] == ACCOUNT, mail["Username"]
        assert mail["Text"] and mail["HTML"] and mail["Subject"] == "Invitation to “Demo”", mail["Subject"]
        say("by STARTTLS and a login, once its certificate is trusted: the mail that waited, once, as text and HTML")

        self.password.write_text("wrong")
        self.invite(api, "bob@example.com")
        self.tried_twice()
        assert self.relay.mails("bob@example.com") == []
        self.password.write_text(SECRET)
        self.only("bob@example.com")
        say("a login that is refused is tried again, with the password of now")

        self.relay.troubles(451)
        self.invite(api, "eve@example.com")
        self.tried_twice()
        self.relay.troubles()
        self.only("eve@example.com")
        say("a relay that says later (451) is asked later")

        self.relay.troubles(550)
        self.invite(api, "nobody@example.com")
        insist("the job is given up", lambda: self.job()["state"] == "discarded")
        assert self.job()["attempt"] == 1
        self.relay.troubles()
        time.sleep(3)
        assert self.relay.mails("nobody@example.com") == []
        say("a relay that refuses (550) is asked once")
        return api

    def told_once(self, api):
        """An operation that fails, a quota at nine tenths, and a key a week before its end."""
        template = api.template()
        made = api.insist("POST", "/v1/vms", {"displayName": "web-1", "template": template}).body
        api.insist("POST", f"/v1/{made['name']}:wait", {"timeout": "60s"})
        self.down()
        api = self.up(simulated_task_fault_rate=1)
        operator = Api(self.product)
        body = {"email": EMAIL, "password": PASSWORD, "tenant": "provider"}
        operator.token = operator.insist("POST", "/v1/auth:login", body).body["accessToken"]
        vm = made["metadata"]["target"]
        api.insist("POST", f"/v1/{vm}:stop", {})
        soon = (datetime.now(timezone.utc) + timedelta(days=6)).isoformat()
        api.insist("POST", "/v1/apiKeys", {"displayName": "ci", "permissions": ["vm:read"], "expireTime": soon})
        operator.insist("PATCH", "/v1/tenants/demo/quota", {"limits": {"vms": 1}})
        # A broadcast to many besides, which is taken back and told again at random.
        Cluster(self.product.data).run(
            f"INSERT INTO iam.users (id, email, display_name) SELECT gen_random_uuid(), 'many-' || i || '@example.com', 'Many' "
            f"FROM generate_series(1, {MANY}) i; "
            "INSERT INTO iam.memberships (tenant_id, id, account_id, email, display_name, state) SELECT t.id, gen_random_uuid(), u.id, "
            "u.email, u.display_name, 'ACTIVE' FROM iam.users u JOIN iam.tenants t ON t.slug = 'demo' WHERE u.email LIKE 'many-%'")
        broadcast = {"title": "Work on storage 7", "body": "It will be slow.", "audience": {"tenants": ["tenants/demo"]},
                     "channels": ["EMAIL"]}
        broadcast = operator.insist("POST", "/v1/broadcasts", broadcast).body["name"]
        expected = {
            "OPERATION_FAILED": "failed", "KEY_EXPIRING": "An API key ends soon", "QUOTA_NEARLY_USED": "A quota is nearly used",
        }
        rng, kills = random.Random(SEED), 0
        while True:
            operator.call("POST", f"/v1/{broadcast}:{rng.choice(['activate', 'deactivate'])}", {})
            time.sleep(rng.uniform(0.1, 1.5))
            self.product.kill()
            kills += 1
            self.product.start(simulated_task_fault_rate=1)
            if not self.product.wait(90):
                raise Wrong("it does not start again")
            done = Cluster(self.product.data).query(
                "SELECT kind FROM notifications.mails WHERE sent_at IS NOT NULL")
            if {row["kind"] for row in done} >= set(expected) and kills >= 12:
                break
            if kills == 60:
                raise Wrong(f"after {kills} kills only {done} are mailed")
        api.login()
        operator.call("POST", f"/v1/{broadcast}:activate", {})

        def told_by_mail():
            return sum(bool(self.relay.mails(f"many-{number}@example.com")) for number in range(1, MANY + 1))

        insist("all are mailed", lambda: told_by_mail() == MANY, 120)
        insist("no mail waits", lambda: Cluster(self.product.data).query(
            "SELECT count(*) AS count FROM background_jobs.jobs WHERE queue = 'mail' AND finished_at IS NULL")[0]["count"] == 0)
        time.sleep(5)
        told = [one["kind"] for one in api.every("notifications", "notifications")]
        mails = [mail for mail in self.relay.mails(EMAIL)]
        for kind, said in expected.items():
            about = [mail for mail in mails if said in mail["Text"]]
            assert told.count(kind) == 1, f"{kind} is told {told.count(kind)} times"
            # A relay that took a mail whose sender was killed before it heard so gets it again, as the same mail.
            assert len({mail["MessageID"] for mail in about}) == 1, f"{kind}: {[mail['Subject'] for mail in about]}"
            assert about[0]["ListUnsubscribe"]["Links"], about[0]["ListUnsubscribe"]
            say(f"{kind}: one notification, one mail ({len(about)} handed over), {about[0]['Subject']!r}")
        handed_over = 0
        for number in range(1, MANY + 1):
            mails = self.relay.mails(f"many-{number}@example.com")
            handed_over += len(mails)
            assert len({mail["MessageID"] for mail in mails}) == 1, [mail["MessageID"] for mail in mails]
        say(f"a broadcast to {MANY}, taken back and told again: one mail each ({handed_over} handed over)")
        say(f"killed with -9 {kills} times meanwhile")


def main():
    with workspace(False) as folder, contextlib.ExitStack() as stack:
        run = Run(folder)
        stack.callback(run.relay.close)
        run.begin()
        stack.callback(run.product.close)
        run.told_once(run.conversations())
        say("passed")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, Wrong) as error:
        say(f"FAILED: {error!r}")
        sys.exit(1)
