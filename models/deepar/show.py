"""A week of forecasts, each made at midnight, beside what came."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.showing import MODEL, QUIET, TRUTH, Ask, figure, save

_BANDS = (("0.05", "0.95", 0.15), ("0.1", "0.9", 0.2), ("0.3", "0.7", 0.3))


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """Seven held-out days of Victoria: the live endpoint's mean and bands, the truth, and repeating yesterday."""
    days = json.loads((card / "days.json").read_bytes())
    levels = sorted({level for low, high, _ in _BANDS for level in (low, high)})
    request = {
        "instances": [day["instance"] for day in days],
        "configuration": {"num_samples": 200, "output_types": ["mean", "quantiles"], "quantiles": levels},
    }
    answers = json.loads(ask(json.dumps(request).encode(), "application/json", "application/json"))["predictions"]

    page = figure(9.0, 3.4)
    axes = page.subplots()
    steps = len(days[0]["came"])
    for number, (day, answer) in enumerate(zip(days, answers, strict=True)):
        hours = (number * steps + np.arange(steps)) / steps
        for low, high, shade in _BANDS:
            found = answer["quantiles"]
            axes.fill_between(hours, found[low], found[high], color=MODEL, alpha=shade, linewidth=0)
        first = number == 0
        yesterday = day["instance"]["target"][-steps:]
        axes.plot(hours, yesterday, color=QUIET, linewidth=1, label="the day before" if first else None)
        axes.plot(
            hours, answer["mean"], color=MODEL, linewidth=1.4, label="forecast: mean, 40, 80, 90 %" if first else None
        )
        axes.plot(hours, day["came"], color=TRUTH, linewidth=1.2, linestyle="--", label="what came" if first else None)
        axes.axvline(number, color=QUIET, linewidth=0.6, linestyle=":")
    begins = days[0]["instance"]["start"][:10]
    axes.set_xlim(0, len(days))
    axes.set_xlabel(f"days; each forecast is made at midnight from the eight days before (the first of them {begins})")
    axes.set_ylabel("demand, GW")
    axes.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.5, 1.14))
    save(page, picture)
