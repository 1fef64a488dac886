"""How many calls the account has within one minute, in all and of some kinds."""

import collections
import math
import time

# Of the limit of the account.
SHARES = {"list": 0.4, "view": 0.5, "create": 0.5, "update": 0.5}


class Limits:
    """A minute begins with the first call after the one before has ended."""

    def __init__(self, total, minute):
        self.total, self.minute = total, minute
        self.shares = {kind: max(1, int(total * share)) for kind, share in SHARES.items()}
        self.began, self.used = -math.inf, collections.Counter()
        self.arrivals, self.most = collections.deque(), 0

    def arrive(self):
        """Counts a call, whatever becomes of it, towards the greatest number within any stretch of a minute."""
        now = time.monotonic()
        self.arrivals.append(now)
        while self.arrivals[0] <= now - self.minute:
            self.arrivals.popleft()
        self.most = max(self.most, len(self.arrivals))

    def take(self, kind, cost):
        """Whether a call may be carried out, and the headers of its reply. A call that may not has its cost all the same."""
        now = time.monotonic()
        if now >= self.began + self.minute:
            self.began = now
            self.used.clear()
        allowed = self.used["all"] + cost <= self.total
        self.used["all"] = min(self.total, self.used["all"] + cost)
        if kind in self.shares:
            allowed = allowed and self.used[kind] < self.shares[kind]
            self.used[kind] += 1
        return allowed, {
            "X-RateLimit-Total": self.total,
            "X-RateLimit-Remaining": self.total - self.used["all"],
            "X-RateLimit-Used-CurrentRequest": cost,
        }

    def retry_after(self):
        """Whole seconds, of which there is always one, though a shortened minute may end earlier."""
        return max(1, math.ceil(self.began + self.minute - time.monotonic()))
