"""Tells a URL of each change as a workflow of Freshservice would: unsigned, once or twice, in some order, never again."""

import collections
import http.client
import json
import random
import threading
import urllib.request

TIMEOUT = 5
# How long an event waits for the one that shall overtake it.
HOLD = 3

# A proxy of the environment has no business between two programs of one machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Webhooks:
    """Sends in a thread of its own, so that no change waits for who listens."""

    def __init__(self, seed):
        self.seed, self.changed = seed, threading.Condition()
        self.reset()
        threading.Thread(target=self._run, daemon=True).start()

    def reset(self):
        with self.changed:
            self.random = random.Random(f"{self.seed} webhooks")
            self.target, self.waiting, self.held = None, collections.deque(), None
            self.sent = self.failed = 0

    def set(self, target):
        """Where events go from now on: url, secret_header, secret, twice, reorder."""
        with self.changed:
            self.target = target

    def tell(self, event):
        with self.changed:
            if self.target is None:
                return
            copies = [(event, self.target)] * (2 if self.random.random() < self.target.get("twice", 0) else 1)
            late = self.random.random() < self.target.get("reorder", 0)
            if late and self.held is None:
                self.held = copies
            else:
                self.waiting.extend(copies)
                self._release()
            self.changed.notify()

    def told(self):
        with self.changed:
            waiting = len(self.waiting) + len(self.held or [])
            return {"sent": self.sent, "failed": self.failed, "waiting": waiting}

    def _release(self):
        self.waiting.extend(self.held or [])
        self.held = None

    def _run(self):
        while True:
            with self.changed:
                while not self.waiting:
                    if not self.changed.wait(HOLD if self.held else None):
                        self._release()
                event, target = self.waiting.popleft()
            arrived = self._send(event, target)
            with self.changed:
                self.sent += arrived
                self.failed += not arrived

    @staticmethod
    def _send(event, target):
        headers = {"Content-Type": "application/json"}
        if target.get("secret_header"):
            headers[target["secret_header"]] = target.get("secret", "")
        try:
            request = urllib.request.Request(target["url"], json.dumps(event).encode(), headers, method="POST")
            with OPENER.open(request, timeout=TIMEOUT) as reply:
                reply.read()
            return True
        except (OSError, http.client.HTTPException, ValueError):
            return False
