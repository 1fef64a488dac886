"""What goes wrong on purpose, drawn for each call from a seeded generator."""

import collections
import random

Fate = collections.namedtuple("Fate", "resets rate_limited error lost_replies slow_seconds")


class Faults:
    def __init__(self, seed):
        self.random = random.Random(f"{seed} faults")
        self.set({})

    def set(self, given):
        """Probabilities instead of the ones before; what is not named does not happen."""
        self.chances = {name: given.get(name, 0) for name in ("resets", "rate_limited", "errors", "lost_replies")}
        self.slow = given.get("slow", {"p": 0, "seconds": 0})

    def draw(self):
        """What will become of the next call. Each takes the same numbers, so that settings do not shift later calls."""
        happens = {name: self.random.random() < chance for name, chance in self.chances.items()}
        status = self.random.choice((500, 502, 503))
        slow = self.random.random() < self.slow["p"]
        return Fate(happens["resets"], happens["rate_limited"], status if happens["errors"] else None,
                    happens["lost_replies"], self.slow["seconds"] if slow else 0)
