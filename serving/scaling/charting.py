"""Charts of what was measured or simulated over time: in a terminal, as SVG with nothing but text, as PNG through
matplotlib where that is installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal, NamedTuple

from serving.errors import ConfigError

Kind = Literal["area", "steps", "line", "marks"]

_WIDTH, _PANEL, _LEFT, _RIGHT, _TOP, _GAP = 960, 150, 64, 16, 54, 46
_TICKS = 8


class Series(NamedTuple):
    """One thing over time. ``marks``: where on the time axis something happened; their ``ys`` are not looked at."""

    name: str
    kind: Kind
    colour: str
    xs: Sequence[float]
    ys: Sequence[float] = ()


class Panel(NamedTuple):
    """Things in one unit, drawn over each other."""

    title: str
    unit: str
    series: Sequence[Series]


@dataclass(frozen=True, slots=True)
class Chart:
    """Panels below each other, on one axis of ``seconds``."""

    title: str
    seconds: float
    panels: Sequence[Panel]


def save(chart: Chart, path: Path) -> None:
    """Write a ``.svg`` or ``.png``. Raises ``ConfigError`` for any other, where the file cannot be written, and for a
    PNG without matplotlib."""
    try:
        if path.suffix == ".svg":
            path.write_text(svg(chart), encoding="utf-8")
        elif path.suffix == ".png":
            _png(chart, path)
        else:
            raise ConfigError(f"A chart is a .svg or a .png, not {path.name}.")
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}.") from None


# --- axes -------------------------------------------------------------------------------------------------------------


def ceiling(values: Sequence[float]) -> float:
    """A round number not below any of them: 1, 2 or 5 times a power of ten, or four fifths of one."""
    largest = max(values, default=0.0)
    if not 1e-9 < largest < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return next((power * step for step in (1, 1.5, 2, 3, 4, 5, 8) if power * step >= largest), power * 10)


def clock(seconds: float, whole: float) -> str:
    """A time on the axis: ``06:00`` of a day or hours, ``90 s`` of minutes."""
    if whole > 900:
        return f"{int(seconds // 3600):02}:{int(seconds % 3600 // 60):02}"
    return f"{seconds:.0f} s"


def _time_ticks(whole: float) -> list[float]:
    """Round times, about eight."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)
    step = next((step for step in steps if whole / step <= _TICKS), math.ceil(whole / _TICKS / 86_400) * 86_400)
    return [number * step for number in range(int(whole / step) + 1)]


def _limit(panel: Panel) -> float:
    return ceiling([max(one.ys) for one in panel.series if one.kind != "marks" and len(one.ys)])


# --- SVG --------------------------------------------------------------------------------------------------------------


def svg(chart: Chart) -> str:
    """The chart as an SVG document; dark on white, whatever the page around it."""
    height = _TOP + len(chart.panels) * (_PANEL + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"'
        f' font-size="12" fill="#333"><rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-size="16" font-weight="bold">{escape(chart.title)}</text>',
    ]
    for number, panel in enumerate(chart.panels):
        parts += _svg_panel(panel, chart.seconds, _TOP + number * (_PANEL + _GAP))
    return "\n".join([*parts, "</svg>\n"])


def _svg_panel(panel: Panel, seconds: float, top: float) -> list[str]:
    right, bottom, limit = _WIDTH - _RIGHT, top + _PANEL, _limit(panel)
    parts = [f'<text x="{_LEFT}" y="{top - 8}" font-weight="bold">{escape(panel.title)}</text>']
    at = right
    for one in reversed(panel.series):
        parts.append(f'<text x="{at}" y="{top - 8}" text-anchor="end" fill="{one.colour}">{escape(one.name)}</text>')
        at -= 14 + 7 * len(one.name)
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * _PANEL
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{limit * share:g}</text>')
    parts.append(
        f'<text x="14" y="{(top + bottom) / 2}" transform="rotate(-90 14 {(top + bottom) / 2})"'
        f' text-anchor="middle">{escape(panel.unit)}</text>'
    )
    for tick in _time_ticks(seconds):
        x = _LEFT + tick / seconds * (right - _LEFT)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{clock(tick, seconds)}</text>')
    return parts + [_svg_series(one, seconds, limit, bottom) for one in panel.series if len(one.xs)]


def _svg_series(one: Series, seconds: float, limit: float, bottom: float) -> str:
    width = _WIDTH - _RIGHT - _LEFT
    xs = [_LEFT + x / seconds * width for x in one.xs]
    if one.kind == "marks":
        lines = "".join(f"M{x:.1f} {bottom}v-8" for x in xs)
        return f'<path d="{lines}" stroke="{one.colour}" stroke-width="1.5" fill="none"/>'
    ys = [bottom - min(y, limit) / limit * _PANEL for y in one.ys]
    if one.kind == "steps":
        path = f"M{xs[0]:.1f} {ys[0]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in zip(xs[1:], ys[1:], strict=True))
    else:
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
    if one.kind == "area":
        return f'<path d="{path}V{bottom}H{xs[0]:.1f}Z" fill="{one.colour}" fill-opacity="0.35"/>'
    return f'<path d="{path}" stroke="{one.colour}" stroke-width="1.5" fill="none"/>'


# --- PNG --------------------------------------------------------------------------------------------------------------


def _png(chart: Chart, path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("A PNG needs matplotlib: pip install 'serving[load]'; an .svg needs nothing.") from None
    figure = Figure(figsize=(12, 0.8 + 2.2 * len(chart.panels)), layout="constrained")
    figure.suptitle(chart.title, fontweight="bold")
    for axes, panel in zip(
        figure.subplots(len(chart.panels), sharex=True, squeeze=False)[:, 0], chart.panels, strict=True
    ):
        limit = _limit(panel)
        for one in panel.series:
            if one.kind == "area":
                axes.fill_between(one.xs, one.ys, color=one.colour, alpha=0.35, linewidth=0, label=one.name)
            elif one.kind == "marks":
                axes.plot(one.xs, [0.02 * limit] * len(one.xs), "|", color=one.colour, label=one.name)
            else:
                style = "steps-post" if one.kind == "steps" else "default"
                axes.plot(one.xs, one.ys, color=one.colour, drawstyle=style, linewidth=1.2, label=one.name)
        axes.set_title(panel.title, loc="left", fontsize=10)
        axes.set_ylabel(panel.unit)
        axes.set_ylim(0, limit)
        axes.set_xlim(0, chart.seconds)
        axes.set_xticks(_time_ticks(chart.seconds), [clock(at, chart.seconds) for at in _time_ticks(chart.seconds)])
        axes.grid(axis="y", alpha=0.3)
        axes.legend(loc="upper right", fontsize=8, ncols=4, framealpha=0.6)
    figure.savefig(path, dpi=110)


# --- terminal ---------------------------------------------------------------------------------------------------------


def capacity_lines(load: Sequence[float], capacity: Sequence[float], limit: float, height: int) -> list[str]:
    """Load and capacity in columns: ``█`` work that is being done, ``░`` workers to spare, ``!`` work that has none."""
    lines = []
    for row in reversed(range(height)):
        level = (row + 0.5) / height * limit
        cells = (
            ("█" if held >= level else "!") if work >= level else ("░" if held >= level else " ")
            for work, held in zip(load, capacity, strict=True)
        )
        label = f"{limit * (row + 1) / height:g}" if row == height - 1 else ("0" if not row else "")
        lines.append(f"{label:>5} │{''.join(cells)}")
    return lines


def time_line(seconds: float, width: int) -> str:
    """The axis below such columns."""
    cells = [" "] * (width + 6)
    for tick in _time_ticks(seconds):
        text, at = clock(tick, seconds), int(tick / seconds * (width - 1))
        if at + len(text) <= len(cells):
            cells[at : at + len(text)] = text
    return "       " + "".join(cells).rstrip()
