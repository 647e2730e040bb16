"""Numbers and times as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

NOTHING = "–"
_STEPS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float | None) -> str:
    """Three figures: ``0``, ``0.25``, ``12.4``, ``3.46k``, ``1.2M``."""
    if value is None or math.isnan(value):
        return NOTHING
    for step, sign in _STEPS:
        if abs(value) >= step:
            return f"{_three(value / step)}{sign}"
    return _three(value)


def _three(value: float) -> str:
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def rate(value: float | None) -> str:
    """By the second."""
    return NOTHING if value is None else f"{number(value)}/s"


def milliseconds(value: float | None) -> str:
    """From microseconds to seconds."""
    if value is None:
        return NOTHING
    if value < 1:
        return f"{_three(value * 1000)} µs"
    return f"{_three(value)} ms" if value < 1000 else f"{_three(value / 1000)} s"


def size(value: float | None) -> str:
    """Bytes, in steps of 1,000."""
    if value is None or math.isnan(value):
        return NOTHING
    for step, sign in _STEPS:
        if abs(value) >= step:
            return f"{_three(value / step)} {sign}B"
    return f"{value:.0f} B"


def share(value: float | None) -> str:
    """Of a whole, in percent."""
    return NOTHING if value is None else f"{_three(100 * value)} %"


def age(seconds: float | None) -> str:
    """How long ago, or how long: ``4 s``, ``12 min``, ``3 h``, ``2 d``."""
    if seconds is None or math.isnan(seconds):
        return NOTHING
    for step, sign in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * step:
            return f"{seconds / step:.0f} {sign}"
    return f"{max(0.0, seconds):.0f} s"


def clock(when: float) -> str:
    """An epoch time as a page without script shows it; the script makes it local."""
    return f"{datetime.fromtimestamp(when, UTC):%H:%M:%S} UTC"


def stamp(when: float) -> str:
    """The same for machines (``<time datetime>``)."""
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%dT%H:%M:%SZ}"
