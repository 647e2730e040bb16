"""A year of days as the live endpoint scored them, and what an ordinary and an odd one look like."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np

from models.showing import MODEL, ODD, QUIET, TRUTH, Ask, figure, save

_NAMED = 6
_MASS = 0.1
_QUIET_DAY = 170  # where the picture has room for words


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """Above: the score of each day, mass cancellations in another colour. Below: departures by the hour."""
    body = (card / "days.csv").read_bytes()
    facts = json.loads((card / "days.json").read_bytes())
    scores = np.array([row["score"] for row in json.loads(ask(body, "text/csv", "application/json"))["scores"]])
    left = np.loadtxt(body.decode().splitlines(), delimiter=",")
    dates = [datetime.date.fromisoformat(date) for date in facts["dates"]]
    odd = np.array(facts["cancelled"]) >= _MASS

    page = figure(9.0, 4.6)
    above, below = page.subplots(2, 1, height_ratios=(1.4, 1.0))
    above.vlines(dates, 0, scores, color=np.where(odd, ODD, QUIET), linewidth=1.2)
    limit = scores.mean() + 3 * scores.std()
    above.axhline(limit, color=TRUTH, linestyle=":", linewidth=1)
    above.annotate(
        "three standard deviations", (dates[_QUIET_DAY], limit), (0, 3), textcoords="offset points", fontsize=7
    )
    oddest = np.argsort(-scores)[:_NAMED]
    for day in oddest:
        above.annotate(f"{dates[day]:%d %b}", (dates[day], scores[day]), fontsize=7, ha="center", va="bottom")
    above.set_ylabel("score")
    above.set_title("days of 2013; red: a tenth or more of the flights were cancelled")
    hours = range(24)
    below.fill_between(hours, *np.percentile(left, (10, 90), axis=0), color=MODEL, alpha=0.2, label="most days")
    below.plot(hours, np.median(left, axis=0), color=MODEL, label="the median day")
    below.plot(hours, left[oddest[0]], color=ODD, label=f"{dates[oddest[0]]:%d %B}")
    below.set_xlabel("hour")
    below.set_ylabel("departures")
    below.legend(fontsize=7)
    save(page, picture)
