"""An upload whose client and server are cut off again and again, and which goes on from what is there."""

import collections
import http.client
import json
import select
import socket
import struct
import time
import urllib.parse

from product import Answer, Wrong, say

BLOCK = 128 << 10
# A dead writer holds its upload for 30 s.
PATIENCE = 90


def put(api, template, image, first, until, pace=0):
    """Sends a file from a byte on, and leaves off in the middle at another: the answer, the connection, how far it came.

    An answer that comes instead of "100 Continue", or meanwhile, ends it. Each block takes the seconds of the pace at least.
    """
    where = urllib.parse.urlsplit(api.product.base())
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    at = first
    try:
        connection.putrequest("PUT", f"/v1/{template}:upload")
        for name, value in [
            ("Authorization", f"Bearer {api.token}"), ("Content-Type", "application/octet-stream"),
            ("Content-Length", image.size - first), ("Content-Range", f"bytes {first}-{image.size - 1}/{image.size}"),
            ("Expect", "100-continue"),
        ]:
            connection.putheader(name, value)
        connection.endheaders()
        if not continues(connection.sock):
            return read(connection), connection, at
        with image.path.open("rb") as file:
            file.seek(first)
            while at < until:
                block = file.read(min(BLOCK, until - at))
                connection.sock.sendall(block)
                at += len(block)
                time.sleep(pace)
        return (read(connection) if until == image.size else None), connection, at
    except (OSError, http.client.HTTPException) as error:
        return answered(connection, error), connection, at


def continues(sock):
    """Whether the body is wanted."""
    head = b""
    while b"\r\n\r\n" not in head:
        if not select.select([sock], [], [], 60)[0]:
            raise TimeoutError
        head = sock.recv(1024, socket.MSG_PEEK)
        if not head:
            raise ConnectionResetError
        if head[:12] != b"HTTP/1.1 100"[:len(head)]:
            return False
    sock.recv(head.index(b"\r\n\r\n") + 4)
    return True


def read(connection):
    reply = connection.getresponse()
    return Answer(reply.status, reply.headers, json.loads(reply.read() or b"{}"))


def answered(connection, error):
    """What the server said before it stopped listening, if it did."""
    try:
        return read(connection)
    except (OSError, ValueError, http.client.HTTPException):
        return Answer(None, {}, None, type(error).__name__)


def hang_up(connection, reset):
    if reset and connection.sock:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Upload:
    """One file on its way, and what was seen of it."""

    def __init__(self, api, template, image, rng):
        self.api, self.template, self.image, self.rng = api, template, image, rng
        self.answers, self.faults = collections.Counter(), []
        self.sent = self.most = self.held = 0

    def there(self):
        """How many bytes the product says that it has; it never takes one back, and has none that was not sent."""
        found = self.api.insist("GET", f"/v1/{self.template}").body
        there = int(found.get("uploadedBytes", 0))
        if there < self.most:
            self.faults.append(f"{there} bytes after {self.most}")
        if there > self.sent:
            self.faults.append(f"{there} bytes of {self.sent} sent")
        self.most = max(self.most, there)
        return there

    def run(self, cuts):
        """Sends it all. Each cut is an offset and what to do there: None hangs up, anything else is done before that."""
        cuts = sorted(cuts, key=lambda cut: cut[0])
        end = time.monotonic() + PATIENCE
        while (first := self.there()) < self.image.size:
            if cuts and cuts[0][0] <= first:
                raise Wrong(f"cut at {cuts[0][0]}, {first} are there: more than was sent")
            until, what = cuts[0] if cuts else (self.image.size, None)
            answer, connection, at = put(self.api, self.template, self.image, first, until)
            self.sent = max(self.sent, at)
            if answer is None:
                if what:
                    what()
                hang_up(connection, self.rng.random() < 0.5)
                del cuts[0]
                self.answers["cut off" if what is None else "killed"] += 1
                end = time.monotonic() + PATIENCE
                continue
            hang_up(connection, False)
            self.answers[answer.brief()] += 1
            if answer.status == 200:
                return self
            held = answer.brief().endswith("UPLOAD_IN_PROGRESS")
            if not held and answer.status not in (None, 429, 503):
                raise Wrong(f"{self.template}:upload from {first}: {answer.brief()} {answer.body}")
            if time.monotonic() > end:
                raise Wrong(f"{self.template}:upload from {first}: still {answer.brief()}")
            pause = self.rng.uniform(0.1, 0.4)
            self.held += pause if held else 0
            time.sleep(pause)
        return self

    def report(self, seconds):
        count = ", ".join(f"{number}× {what}" for what, number in self.answers.most_common())
        say(f"{self.image.name}: {self.image.size >> 20} MiB uploaded in {seconds:.0f} s, of which {self.held:.0f} s waiting for"
            f" a dead writer; {count}")
