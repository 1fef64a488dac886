#!/usr/bin/env python3
"""A stand-in for the API v2 of Freshservice, as far as tickets of tenants need it, with faults on demand. Loopback only.

    tests/freshservice/desk.py [--port 0] [--ready-file F] [--key K] [--minute S] [--limit N] [--seed N] [--stdin-guard]

It is faithful where a client can go wrong: times in whole seconds, notes that are private unless told otherwise, lists that
leave out what is old or deleted, limits that failed calls count towards, no idempotency of any kind. Everything is in memory.
Programs steer it while it runs through /control (see control.py).
"""

import argparse
import http.server
import json
import os
import signal
import socket
import struct
import sys
import threading
import urllib.parse
from pathlib import Path

import api
import control
import talk  # noqa: F401, its calls register themselves
import tickets  # noqa: F401
from state import Desk

LARGEST_BODY = 40 << 20


class Broken(Exception):
    """A request that ends too early, or makes no sense as HTTP."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A reply is one write, so that no client waits for the rest of it.
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self):
        try:
            body = self._body()
        except (Broken, ValueError):
            self.close_connection = True
            return
        if body is None:
            self.close_connection = True
            self._send(api.Reply(413))
            return
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
        request = api.Request(self.command, url.path, query, self.headers, body)
        side = control if url.path.startswith("/control/") else api
        self._send(side.serve(self.server.desk, request))

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def _body(self):
        """The whole body, or none if it is too large. Nothing is carried out that did not arrive in full."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        length = int(self.headers.get("Content-Length", 0))
        if length > LARGEST_BODY:
            return None
        body = self.rfile.read(length)
        if len(body) < length:
            raise Broken
        return body

    def _chunks(self):
        body = bytearray()
        while size := int(self.rfile.readline(100).split(b";")[0], 16):
            if len(body) + size > LARGEST_BODY:
                return None
            chunk = self.rfile.read(size + 2)
            if not chunk.endswith(b"\r\n"):
                raise Broken
            body += chunk[:-2]
        while self.rfile.readline(1000).strip():
            pass
        return bytes(body)

    def _send(self, reply):
        if reply in (api.RESET, api.LOST):
            self.close_connection = True
            if reply == api.RESET:
                self._reset()
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, str(value))
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body or b"")))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.body or b"")

    def _reset(self):
        """Cuts the connection by a reset; closing alone would be an orderly end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, *_arguments):
        """Prints nothing: what was called is in the state."""


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Clients may go whenever they like; everything else is an error of this program."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def announce(file, url):
    """Whoever sees the file can read all of it."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps({"url": url, "control": f"{url}/control"}))
    partial.rename(file)


def guard(server):
    """Ends with whoever started it."""
    # Not by sys.stdin, whose lock would be held when the program ends for another reason.
    while os.read(0, 1024):
        pass
    server.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ready-file", type=Path, help="gets url and control as JSON once it listens")
    parser.add_argument("--key", default="desk-key", help="the API key")
    parser.add_argument("--minute", type=float, default=60, help="how many seconds a minute of the limits lasts")
    parser.add_argument("--limit", type=int, default=200, help="calls within a minute")
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    parser.add_argument("--stdin-guard", action="store_true", help="end when standard input closes")
    given = parser.parse_args()
    with Server(("127.0.0.1", given.port), Handler) as server:
        server.desk = Desk(given.key, given.seed, given.limit, given.minute)
        server.desk.url = f"http://127.0.0.1:{server.server_port}"
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        if given.stdin_guard:
            threading.Thread(target=guard, args=(server,), daemon=True).start()
        if given.ready_file:
            announce(given.ready_file, server.desk.url)
        server.serve_forever(0.05)


if __name__ == "__main__":
    main()
