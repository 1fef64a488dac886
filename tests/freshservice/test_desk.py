#!/usr/bin/env python3
"""Tests of the desk over HTTP, each on a desk as new."""

import base64
import concurrent.futures
import contextlib
import datetime
import hashlib
import http.client
import http.server
import json
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse
from pathlib import Path

PROGRAM = Path(__file__).with_name("desk.py")
KEY = "the-key"
TICKET = {"subject": "No network", "description": "<p>It is <b>down</b>.</p>", "email": "ann@tenant.example", "status": 2,
          "priority": 1, "source": 2}


def basic(key):
    """The password is any."""
    return "Basic " + base64.b64encode(f"{key}:X".encode()).decode()


class Running:
    """The program, until `close`."""

    def __init__(self, *arguments):
        self.folder = tempfile.TemporaryDirectory(prefix="desk-")
        ready = Path(self.folder.name) / "ready.json"
        command = [sys.executable, PROGRAM, "--stdin-guard", "--ready-file", ready, "--key", KEY, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        end = time.monotonic() + 15
        while not ready.exists():
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError(f"the desk does not start: {self.process.stderr.read().decode()}")
            time.sleep(0.01)
        self.url = json.loads(ready.read_text())["url"]

    def close(self):
        """Ends it by the guard; what it has printed."""
        errors = self.process.communicate(timeout=10)[1].decode()
        self.folder.cleanup()
        return errors

    def send(self, method, path, body=None, headers=None, key=KEY, timeout=10):
        """One call on a connection of its own: status, headers, JSON or bytes."""
        where = urllib.parse.urlsplit(self.url)
        headers = {"Authorization": basic(key)} | (headers or {})
        if body is not None and not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"} | headers
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            content = reply.read()
            is_json = reply.headers.get("Content-Type", "").startswith("application/json")
            return reply.status, reply.headers, json.loads(content) if is_json else content

    def call(self, method, path, body=None, **more):
        return self.send(method, f"/api/v2{path}", body, **more)

    def control(self, path, body=None):
        status, _, reply = self.send("POST", f"/control/{path}", {} if body is None else body)
        assert status == 200, (path, status, reply)
        return reply

    def state(self):
        return self.send("GET", "/control/state")[2]


def form(fields, files):
    """A multipart body and its type."""
    lines = []
    for name, value in fields:
        lines.append(f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for name, kind, content in files:
        lines.append(f'--edge\r\nContent-Disposition: form-data; name="attachments[]"; filename="{name}"\r\n'
                     f"Content-Type: {kind}\r\n\r\n".encode() + content + b"\r\n")
    return b"".join(lines) + b"--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}


class Case(unittest.TestCase):
    arguments = ("--limit", 1000)

    @classmethod
    def setUpClass(cls):
        cls.desk = Running(*cls.arguments)

    @classmethod
    def tearDownClass(cls):
        errors = cls.desk.close()
        assert cls.desk.process.returncode == 0 and not errors, errors

    def setUp(self):
        self.desk.control("reset")

    def insist(self, expected, method, path, body=None, **more):
        status, headers, reply = self.desk.call(method, path, body, **more)
        self.assertEqual(status, expected, reply)
        return reply, headers

    def create(self, **fields):
        return self.insist(201, "POST", "/tickets", TICKET | fields)[0]["ticket"]

    def errors(self, method, path, body, **more):
        """The codes by field of what is refused."""
        reply = self.insist(400, method, path, body, **more)[0]
        self.assertEqual(reply["description"], "Validation failed")
        return {error["field"]: error["code"] for error in reply["errors"]}


class Tickets(Case):
    def test_a_ticket_has_its_text_and_makes_a_requester(self):
        ticket = self.create(tags=["vs-1"], custom_fields={"cf_virtualstack_ticket": "t1"}, due_by="2100-01-01T01:00:00+01:00")
        self.assertEqual(ticket["description_text"], "It is down.")
        self.assertEqual((ticket["type"], ticket["deleted"], ticket["tags"]), ("Incident", False, ["vs-1"]))
        self.assertEqual((ticket["due_by"], ticket["custom_fields"]), ("2100-01-01T00:00:00Z", {"cf_virtualstack_ticket": "t1"}))
        self.assertRegex(ticket["updated_at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        found = self.insist(200, "GET", "/requesters?email=ANN@tenant.example")[0]["requesters"]
        self.assertEqual([r["id"] for r in found], [ticket["requester_id"]])
        self.assertEqual(self.create()["requester_id"], ticket["requester_id"])

    def test_wrong_fields_are_all_named(self):
        self.assertEqual(self.errors("POST", "/tickets", {}), dict.fromkeys(
            ("subject", "description", "status", "priority", "source"), "missing_field"))
        without = {name: value for name, value in TICKET.items() if name != "email"}
        self.assertEqual(self.errors("POST", "/tickets", without), {"requester_id": "missing_field"})
        wrong = TICKET | {"subject": "x" * 256, "status": 9, "priority": "1", "colour": "red", "tags": [1], "requester_id": 5,
                          "due_by": "2001-01-01T00:00:00Z", "custom_fields": {"cf_other": "x"}}
        self.assertEqual(self.errors("POST", "/tickets", wrong), {
            "subject": "invalid_value", "status": "invalid_value", "priority": "datatype_mismatch", "colour": "invalid_field",
            "tags": "invalid_value", "requester_id": "invalid_value", "due_by": "invalid_value", "cf_other": "invalid_field"})
        self.assertEqual(self.desk.state()["tickets"], [])

    def test_what_is_not_json_for_the_right_key_is_refused(self):
        self.assertEqual(self.insist(401, "GET", "/tickets", key="other")[0]["code"], "invalid_credentials")
        self.assertEqual(self.insist(400, "POST", "/tickets", b"{", headers={"Content-Type": "application/json"})[0]["code"],
                         "invalid_json")
        self.insist(415, "POST", "/tickets", b"a=b", headers={"Content-Type": "application/x-www-form-urlencoded"})
        body, headers = form([("first_name", "Ann")], [])
        self.insist(415, "POST", "/requesters", body, headers=headers)
        self.assertEqual(self.insist(405, "PUT", "/tickets", {})[1]["Allow"], "POST, GET")
        for method, path in (("GET", "/tickets/77"), ("PUT", "/tickets/77"), ("POST", "/tickets/77/notes"), ("GET", "/other")):
            self.insist(404, method, path, None if method == "GET" else {})

    @contextlib.contextmanager
    def begun(self, length, body):
        """A create that says it is `length` long, and has sent `body` of it."""
        where = urllib.parse.urlsplit(self.desk.url)
        with contextlib.closing(http.client.HTTPConnection(where.hostname, where.port, timeout=10)) as connection:
            connection.putrequest("POST", "/api/v2/tickets")
            for name, value in (("Authorization", basic(KEY)), ("Content-Type", "application/json"), ("Content-Length", length)):
                connection.putheader(name, value)
            connection.endheaders(body)
            yield connection

    def test_a_truncated_request_is_not_carried_out(self):
        body = json.dumps(TICKET).encode()
        with self.begun(len(body) + 1, body) as connection:
            connection.sock.shutdown(socket.SHUT_WR)
            with self.assertRaises(http.client.RemoteDisconnected):
                connection.getresponse()
        self.assertEqual(self.desk.state()["tickets"], [])

    def test_a_request_that_is_too_large_is_refused_unread(self):
        with self.begun((40 << 20) + 1, b"") as connection:
            self.assertEqual(connection.getresponse().status, 413)

    def test_an_update_is_partial_and_raises_updated_at_where_something_differs(self):
        ticket = self.create(custom_fields={"cf_virtualstack_ticket": "t1"})
        self.desk.control("clock", {"skew_seconds": 100})
        same = self.insist(200, "PUT", f"/tickets/{ticket['id']}", {"priority": 1})[0]["ticket"]
        self.assertEqual(same, ticket)
        changed = self.insist(200, "PUT", f"/tickets/{ticket['id']}", {"priority": 3, "custom_fields": {}})[0]["ticket"]
        self.assertGreater(changed.pop("updated_at"), ticket["updated_at"])
        self.assertEqual(changed.pop("priority"), 3)
        self.assertEqual(changed, {name: ticket[name] for name in changed})
        self.assertEqual(self.errors("PUT", f"/tickets/{ticket['id']}", {"subject": None, "id": 4}),
                         {"subject": "datatype_mismatch", "id": "invalid_field"})

    def test_custom_statuses_are_set_up_first(self):
        ticket = self.create()
        path = f"/tickets/{ticket['id']}"
        self.assertEqual(self.errors("PUT", path, {"status": 6}), {"status": "invalid_value"})
        self.desk.control("statuses", {"6": "Waiting for vendor"})
        self.assertEqual(self.insist(200, "PUT", path, {"status": 6})[0]["ticket"]["status"], 6)
        fields = {field["name"]: field for field in self.insist(200, "GET", "/ticket_form_fields")[0]["ticket_fields"]}
        self.assertIn({"id": 6, "value": "Waiting for vendor"}, fields["status"]["choices"])
        self.assertFalse(fields["cf_virtualstack_ticket"]["default_field"])

    def test_custom_fields_have_a_type(self):
        self.desk.control("fields", {"cf_number": "custom_number"})
        self.assertEqual(self.create(custom_fields={"cf_number": 5})["custom_fields"], {"cf_number": 5})
        self.assertEqual(self.errors("POST", "/tickets", TICKET | {"custom_fields": {"cf_number": "5"}}),
                         {"cf_number": "datatype_mismatch"})

    def test_deleting_is_soft(self):
        ticket = self.create()
        path = f"/tickets/{ticket['id']}"
        self.assertEqual(self.insist(204, "DELETE", path)[0], b"")
        self.assertTrue(self.insist(200, "GET", path)[0]["ticket"]["deleted"])
        self.insist(404, "PUT", path, {"priority": 2})
        self.insist(404, "POST", f"{path}/notes", {"body": "x"})
        self.insist(404, "DELETE", path)
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.listed(filter="deleted"), [ticket["id"]])
        self.insist(204, "PUT", f"{path}/restore")
        self.insist(404, "PUT", f"{path}/restore")
        self.assertEqual(self.listed(), [ticket["id"]])

    def listed(self, **query):
        tickets = self.insist(200, "GET", f"/tickets?{urllib.parse.urlencode(query)}")[0]["tickets"]
        return [ticket["id"] for ticket in tickets]

    def test_a_list_is_paged_by_link(self):
        made = [self.create(subject=str(number))["id"] for number in range(32)]
        self.assertEqual(self.listed(), made[:1:-1])
        seen, path = [], "/tickets?per_page=16&order_by=updated_at&order_type=asc"
        while path:
            reply, headers = self.insist(200, "GET", path)
            seen.append([ticket["id"] for ticket in reply["tickets"]])
            link, _, relation = headers.get("Link", "").partition("; ")
            self.assertEqual(relation, 'rel="next"' if link else "")
            path = link.strip("<>").removeprefix(f"{self.desk.url}/api/v2")
        self.assertEqual(seen, [made[:16], made[16:]])
        for query in ("per_page=101", "per_page=0", "page=0", "order_by=subject", "updated_since=now", "colour=red"):
            self.errors("GET", f"/tickets?{query}", None)

    def test_a_list_begins_30_days_ago_or_at_updated_since(self):
        self.desk.control("clock", {"skew_seconds": -40 * 86400})
        old, changed = self.create(), self.create()
        self.desk.control("clock", {"skew_seconds": 0})
        self.insist(200, "PUT", f"/tickets/{changed['id']}", {"priority": 2})
        new = self.create()
        self.assertEqual(self.listed(), [new["id"]])
        since = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
        self.assertEqual(self.listed(updated_since=since.isoformat()), [new["id"], changed["id"]])
        self.assertEqual(self.listed(updated_since=old["updated_at"], order_type="asc"),
                         [old["id"], changed["id"], new["id"]])

    def test_a_list_leaves_out_what_is_not_asked_for(self):
        ticket = self.create(tags=["a"])
        listed = self.insist(200, "GET", "/tickets")[0]["tickets"][0]
        self.assertEqual(set(ticket) - set(listed), {"tags", "attachments"})
        listed = self.insist(200, "GET", "/tickets?include=requester,stats,tags")[0]["tickets"][0]
        self.assertEqual((listed["requester"]["email"], listed["tags"]), (TICKET["email"], ["a"]))
        self.assertIsNone(listed["stats"]["resolved_at"])
        self.create(workspace_id=7)
        self.assertEqual(self.listed(), [ticket["id"]])
        self.assertEqual(len(self.listed(workspace_id=0)), 2)

    def find(self, query):
        reply = self.insist(200, "GET", "/tickets/filter?" + urllib.parse.urlencode({"query": query}))[0]
        self.assertEqual(reply["total"], len(reply["tickets"]))
        return [ticket["id"] for ticket in reply["tickets"]]

    def test_a_filter_finds_by_tag_and_custom_field(self):
        one = self.create(tags=["vs-1", "x"], custom_fields={"cf_virtualstack_ticket": "one AND two"})["id"]
        two = self.create(tags=["vs-2", "x"])["id"]
        self.assertEqual(self.find("\"tag:'vs-1'\""), [one])
        self.assertEqual(self.find("\"tag:'x'\""), [two, one])
        self.assertEqual(self.find("\"tag:'x' AND cf_virtualstack_ticket:'one AND two'\""), [one])
        self.assertEqual(self.find("\"tag:'x' AND priority:2\""), [])
        self.insist(204, "DELETE", f"/tickets/{one}")
        self.assertEqual(self.find("\"tag:'x'\""), [two])
        for wrong in ("tag:'x'", "\"tag:'x' AND \"", "\"tag:'x' OR tag:'y'\"", "\"colour:'red'\"", '""'):
            self.errors("GET", "/tickets/filter?" + urllib.parse.urlencode({"query": wrong}), None)

    def test_a_known_address_is_no_new_requester(self):
        reply = self.insist(201, "POST", "/requesters", {"primary_email": "bob@tenant.example", "first_name": "Bob"})[0]
        again = self.insist(409, "POST", "/requesters", {"primary_email": "Bob@tenant.example", "first_name": "Bob"})[0]
        self.assertEqual(again["errors"][0]["code"], "duplicate_value")
        self.assertEqual(self.create(email="bob@tenant.example")["requester_id"], reply["requester"]["id"])
        self.assertEqual(self.errors("POST", "/requesters", {"first_name": "Bob"}), {"primary_email": "missing_field"})


class Talk(Case):
    def setUp(self):
        super().setUp()
        self.ticket = self.create()
        self.path = f"/tickets/{self.ticket['id']}"

    def test_a_note_is_private_unless_told_otherwise(self):
        self.desk.control("clock", {"skew_seconds": 100})
        note = self.insist(201, "POST", f"{self.path}/notes", {"body": "<div>Looks <i>odd</i></div>"})[0]["conversation"]
        self.assertEqual((note["private"], note["incoming"], note["body_text"]), (True, False, "Looks odd"))
        public = self.insist(201, "POST", f"{self.path}/notes", {"body": "Hello", "private": False})[0]["conversation"]
        self.assertFalse(public["private"])
        ticket = self.insist(200, "GET", self.path)[0]["ticket"]
        self.assertGreater(ticket["updated_at"], self.ticket["updated_at"])
        self.assertEqual(self.errors("POST", f"{self.path}/notes", {"private": "no", "body": ""}),
                         {"private": "datatype_mismatch", "body": "invalid_value"})

    def test_conversations_are_paged_and_some_come_with_the_ticket(self):
        made = [self.insist(201, "POST", f"{self.path}/reply", {"body": str(n)})[0]["conversation"]["id"] for n in range(12)]
        reply, headers = self.insist(200, "GET", f"{self.path}/conversations?per_page=8")
        self.assertEqual([c["id"] for c in reply["conversations"]], made[:8])
        self.assertIn("page=2", headers["Link"])
        rest = self.insist(200, "GET", f"{self.path}/conversations?per_page=8&page=2")
        self.assertEqual(([c["id"] for c in rest[0]["conversations"]], rest[1].get("Link")), (made[8:], None))
        self.assertEqual(rest[0]["conversations"][0]["to_emails"], [TICKET["email"]])
        ticket = self.insist(200, "GET", f"{self.path}?include=conversations,stats")[0]["ticket"]
        self.assertEqual([c["id"] for c in ticket["conversations"]], made[:10])
        self.assertIsNotNone(ticket["stats"]["first_responded_at"])
        self.assertEqual(self.errors("POST", f"{self.path}/reply", {"body": "x", "from_email": "me@else.example"}),
                         {"from_email": "invalid_value"})

    def test_files_come_as_forms_and_go_by_their_url(self):
        content = b"\r\n--edg\xff\r\r\n\x00 end\n"
        fields = [("subject", "With files"), ("description", "<p>x</p>"), ("email", "ann@tenant.example"), ("status", "2"),
                  ("priority", "2"), ("source", "2"), ("tags[]", "a"), ("tags[]", "b"),
                  ("custom_fields[cf_virtualstack_ticket]", "17")]
        body, headers = form(fields, [("ä b.bin", "application/x-thing", content), ("empty.txt", "text/plain", b"")])
        ticket = self.insist(201, "POST", "/tickets", body, headers=headers)[0]["ticket"]
        self.assertEqual((ticket["priority"], ticket["tags"]), (2, ["a", "b"]))
        self.assertEqual(ticket["custom_fields"], {"cf_virtualstack_ticket": "17"})
        file, empty = ticket["attachments"]
        self.assertEqual((file["name"], file["size"], file["content_type"], empty["size"]),
                         ("ä b.bin", len(content), "application/x-thing", 0))
        path = file["attachment_url"].removeprefix(self.desk.url)
        status, headers, fetched = self.desk.send("GET", path)
        self.assertEqual((status, headers["Content-Type"], fetched), (200, "application/x-thing", content))
        self.assertEqual(self.desk.send("GET", path[:-1])[0], 404)
        kept = self.desk.state()["tickets"][1]["attachments"][0]
        self.assertEqual(kept["sha256"], hashlib.sha256(content).hexdigest())

        body, headers = form([("body", "see"), ("private", "false")], [("n.txt", "text/plain", b"n")])
        note = self.insist(201, "POST", f"{self.path}/notes", body, headers=headers)[0]["conversation"]
        self.assertEqual((note["private"], note["attachments"][0]["name"]), (False, "n.txt"))
        self.assertEqual(self.errors("POST", f"{self.path}/notes", {"body": "x", "attachments": ["n.txt"]}),
                         {"attachments": "invalid_value"})

    def test_files_together_have_15_mib_at_most(self):
        half = b"x" * (15 << 19)
        body, headers = form([("body", "x")], [("a", "text/plain", half), ("b", "text/plain", half)])
        self.insist(201, "POST", f"{self.path}/notes", body, headers=headers)
        body, headers = form([("body", "x")], [("a", "text/plain", half), ("b", "text/plain", half + b"x")])
        self.assertEqual(self.errors("POST", f"{self.path}/notes", body, headers=headers), {"attachments": "invalid_value"})
        self.assertEqual(len(self.desk.state()["tickets"][0]["conversations"]), 1)

    def test_a_body_may_come_in_chunks(self):
        where, headers = urllib.parse.urlsplit(self.desk.url), {"Authorization": basic(KEY), "Content-Type": "application/json"}
        with contextlib.closing(http.client.HTTPConnection(where.hostname, where.port, timeout=10)) as connection:
            for text in ("one", "two"):
                connection.request("POST", f"/api/v2{self.path}/notes", iter((b'{"body": ', json.dumps(text).encode(), b"}")),
                                   headers, encode_chunked=True)
                reply = connection.getresponse()
                self.assertEqual((reply.status, json.loads(reply.read())["conversation"]["body"]), (201, text))

    def test_agents_act(self):
        act, other = f"tickets/{self.ticket['id']}", self.create()["id"]
        file = {"name": "a.txt", "content_type": "text/plain", "content": base64.b64encode(b"abc").decode()}
        said = self.desk.control(f"{act}/reply", {"body": "<p>On it</p>", "agent": "Eve", "attachments": [file]})["conversation"]
        self.assertEqual((said["private"], said["body_text"], said["attachments"][0]["size"]), (False, "On it", 3))
        self.assertTrue(self.desk.control(f"{act}/note", {"body": "hm"})["conversation"]["private"])
        theirs = self.desk.control(f"{act}/reply", {"body": "Thanks", "incoming": True})["conversation"]
        self.assertEqual((theirs["user_id"], theirs["from_email"]), (self.ticket["requester_id"], TICKET["email"]))
        eve = self.desk.control(f"{act}/assign", {"responder": "Eve"})["ticket"]["responder_id"]
        self.assertEqual(eve, said["user_id"])
        self.desk.control(f"{act}/priority", {"priority": 4})
        self.desk.control(f"{act}/delete")
        self.desk.control(f"{act}/restore")
        ticket = self.desk.control(f"{act}/status", {"status": 4})["ticket"]
        self.assertEqual((ticket["priority"], ticket["status"], ticket["deleted"]), (4, 4, False))
        merged = self.desk.control(f"{act}/merge", {"into": other})["ticket"]
        last = self.insist(200, "GET", f"{self.path}/conversations")[0]["conversations"][-1]
        self.assertEqual((merged["status"], last["body_text"], set(merged)), (5, f"merged into #{other}", set(self.ticket)))
        for path, body in ((f"{act}/status", {"status": 9}), (f"{act}/note", {"text": "x"}), ("faults", {"lost": 1})):
            self.assertEqual(self.desk.send("POST", f"/control/{path}", body)[0], 400, path)


class Trouble(Case):
    def test_a_lost_reply_is_carried_out(self):
        self.desk.control("faults", {"lost_replies": 1})
        with self.assertRaises(http.client.RemoteDisconnected):
            self.create(tags=["vs-1"])
        self.desk.control("faults", {})
        found = self.insist(200, "GET", "/tickets/filter?" + urllib.parse.urlencode({"query": "\"tag:'vs-1'\""}))[0]
        self.assertEqual(found["total"], 1)
        self.assertEqual(self.desk.state()["calls"]["POST /tickets"], {"201 lost": 1})

    def test_what_fails_is_not_carried_out(self):
        self.desk.control("faults", {"resets": 1})
        with self.assertRaises(ConnectionResetError):
            self.create()
        self.desk.control("faults", {"errors": 1})
        seen = {self.desk.call("POST", "/tickets", TICKET)[0] for _ in range(30)}
        self.assertEqual(seen, {500, 502, 503})
        self.desk.control("faults", {"rate_limited": 1})
        self.assertGreaterEqual(int(self.insist(429, "POST", "/tickets", TICKET)[1]["Retry-After"]), 1)
        self.assertEqual(self.desk.state()["tickets"], [])
        self.desk.control("faults", {})
        self.create()

    def test_a_slow_call_outlasts_a_client_that_does_not_wait(self):
        self.desk.control("faults", {"slow": {"p": 1, "seconds": 3600}})
        with self.assertRaises(TimeoutError):
            self.desk.call("POST", "/tickets", TICKET, timeout=0.3)
        self.assertEqual(self.desk.state()["tickets"], [])

    def test_a_reset_is_the_end_of_what_is_under_way(self):
        self.desk.control("faults", {"slow": {"p": 1, "seconds": 2}})
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(self.desk.call, "POST", "/tickets", TICKET)
            while self.desk.state()["most_calls_in_a_minute"] == 0:
                time.sleep(0.01)
            self.desk.control("reset")
            with self.assertRaises(ConnectionResetError):
                under_way.result()
        self.assertEqual(self.desk.state()["tickets"], [])

    def test_the_same_seed_brings_the_same_faults(self):
        def run():
            self.desk.control("reset")
            self.desk.control("faults", {"errors": 0.3, "lost_replies": 0.3, "resets": 0.1})
            outcomes = []
            for _ in range(40):
                try:
                    outcomes.append(self.desk.call("POST", "/tickets", TICKET)[0])
                except ConnectionError as error:
                    outcomes.append(type(error).__name__)
            return outcomes

        first = run()
        self.assertGreater(len(set(first)), 4)
        self.assertEqual(run(), first)


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted to it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.put((self.path, self.headers.get("X-Desk"), json.loads(body)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments):
        pass


class Webhooks(Case):
    def setUp(self):
        super().setUp()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self.server.got = queue.Queue()
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        thread.start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)

    def listen(self, **more):
        url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.desk.control("webhook", {"url": url, "secret_header": "X-Desk", "secret": "s3cret"} | more)

    def take(self, count):
        return [self.server.got.get(timeout=10) for _ in range(count)]

    def test_each_change_is_told_twice(self):
        self.listen(twice=1)
        ticket = self.create()
        self.desk.control(f"tickets/{ticket['id']}/status", {"status": 3})
        got = self.take(4)
        self.assertEqual([event["event"] for _, _, event in got], ["ticket_created"] * 2 + ["ticket_updated"] * 2)
        self.assertEqual(got[0], ("/hook", "s3cret", {
            "ticket_id": ticket["id"], "event": "ticket_created", "updated_at": ticket["updated_at"]}))
        self.listen()
        self.desk.control(f"tickets/{ticket['id']}/note", {"body": "x"})
        self.desk.control(f"tickets/{ticket['id']}/delete")
        self.assertEqual([event["event"] for _, _, event in self.take(2)], ["note_added", "ticket_deleted"])
        self.assertTrue(self.server.got.empty())

    def test_a_change_may_overtake_another(self):
        self.listen(reorder=1)
        one, two = self.create(), self.create()
        self.assertEqual([event["ticket_id"] for _, _, event in self.take(2)], [two["id"], one["id"]])
        three = self.create()
        self.assertEqual(self.take(1)[0][2]["ticket_id"], three["id"])

    def test_what_nobody_takes_is_not_told_again(self):
        self.desk.control("webhook", {"url": "http://127.0.0.1:1/hook"})
        self.create()
        end = time.monotonic() + 10
        while self.desk.state()["webhooks"] != {"sent": 0, "failed": 1, "waiting": 0}:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        self.listen()
        self.create()
        self.assertEqual(self.take(1)[0][2]["ticket_id"], 2)


class Limits(Case):
    arguments = ("--limit", 20)

    def rates(self, headers):
        return tuple(int(headers[f"X-RateLimit-{name}"]) for name in ("Total", "Remaining", "Used-CurrentRequest"))

    def test_every_reply_tells_the_limit(self):
        self.assertEqual(self.rates(self.insist(200, "GET", "/tickets")[1]), (20, 19, 1))
        self.assertEqual(self.rates(self.insist(404, "GET", "/tickets/9")[1]), (20, 18, 1))
        self.assertEqual(self.rates(self.insist(401, "GET", "/requesters", key="x")[1]), (20, 17, 1))
        self.create()
        self.assertEqual(self.rates(self.insist(200, "GET", "/tickets/1?include=stats,requester")[1]), (20, 13, 3))
        self.assertEqual(self.rates(self.insist(200, "GET", "/tickets?include=stats")[1]), (20, 10, 3))

    def test_the_account_has_a_limit(self):
        for _ in range(20):
            self.insist(200, "GET", "/requesters")
        reply, headers = self.insist(429, "GET", "/requesters")
        self.assertEqual((reply["code"], self.rates(headers)), ("rate_limited", (20, 0, 1)))
        self.assertIn(int(headers["Retry-After"]), range(1, 61))
        self.insist(429, "POST", "/tickets", TICKET)
        state = self.desk.state()
        self.assertEqual((state["rate_limited"], state["most_calls_in_a_minute"], state["tickets"]), (2, 22, []))
        self.assertEqual(state["calls"]["GET /requesters"], {"200": 20, "429": 1})

    def test_kinds_of_calls_have_limits_of_their_own(self):
        for _ in range(8):
            self.insist(200, "GET", "/tickets")
        self.assertEqual(self.rates(self.insist(429, "GET", "/tickets")[1]), (20, 11, 1))
        for _ in range(10):
            self.create()
        self.insist(429, "POST", "/tickets", TICKET)
        self.assertEqual(len(self.desk.state()["tickets"]), 10)


class Recovery(Case):
    arguments = ("--limit", 4, "--minute", 0.5)

    def until(self, status):
        end = time.monotonic() + 10
        while True:
            found, headers, _ = self.desk.call("GET", "/requesters")
            if found == status:
                return headers
            self.assertLess(time.monotonic(), end, f"no {status}")

    def test_a_new_minute_brings_new_calls(self):
        self.assertEqual(self.until(429)["Retry-After"], "1")
        self.assertEqual(self.until(200)["X-RateLimit-Remaining"], "3")


if __name__ == "__main__":
    unittest.main()
