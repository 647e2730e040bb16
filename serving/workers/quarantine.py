"""Which models may not run for a while because they end their workers. Pure; the clock is an argument.

Three deaths within a minute: refused for five seconds, then one trial; each further death doubles it, to five minutes
(``reliability.md`` promise 17: a model that crashes repeatedly costs no worker per call). Where every call counts the
workers that it ended and is given up by itself, the terms are cut short: the calls that wait are not to blame.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from serving.types import LONGEST_QUARANTINE

DEATHS, WINDOW = 3, 60.0
_FIRST = 5.0
#: Ends that come from outside (an operator, a chaos test) rather than from the model's own code.
_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def self_inflicted(wait_status: int) -> bool:
    """Did a worker end by what it ran? A native crash or an exit did; a signal from outside did not."""
    return (wait_status & 0x7F) not in _OUTSIDE


@dataclass(slots=True)
class Quarantine:
    """The strikes of one variant's models, by model key."""

    _deaths: dict[int, list[float]] = field(default_factory=dict)
    _level: dict[int, int] = field(default_factory=dict)
    _until: dict[int, float] = field(default_factory=dict)

    def strike(self, model: int, now: float, longest: float = LONGEST_QUARANTINE) -> float | None:
        """A worker died while this model ran or loaded. Returns until when the model is refused, if it is; no term is
        longer than ``longest`` seconds, and with 0.0 there is none."""
        if not longest:
            return None
        recent = [death for death in self._deaths.get(model, ()) if now - death < WINDOW] + [now]
        self._deaths[model] = recent
        if len(recent) < DEATHS and model not in self._level:
            return None
        level = self._level.get(model, -1) + 1
        self._level[model] = level
        until = now + float(min(_FIRST * 2**level, longest))
        self._until[model] = until
        return until

    @property
    def empty(self) -> bool:
        """Is nothing held against any model?"""
        return not (self._deaths or self._until)

    def refused(self, now: float) -> dict[int, float]:
        """Models refused now, and until when. Forgets those that have behaved for a whole window since."""
        for model in [m for m, until in self._until.items() if now > until + WINDOW]:
            del self._until[model], self._level[model]
        for model in [m for m, deaths in self._deaths.items() if now - deaths[-1] >= WINDOW]:
            del self._deaths[model]
        return {model: until for model, until in self._until.items() if until > now}
