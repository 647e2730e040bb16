"""How far real pairs and swapped ones are apart, and where the net puts the addresses of a few owners."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.showing import MODEL, ODD, TRUTH, Ask, figure, save

_OWNERS = ("Chinanet", "COMCAST-7922", "AMAZON-02", "Turk Telekom", "UUNET", "Korea Telecom")
_EACH = 40


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """Asks the live endpoint for the products of held-out pairs and of the same addresses with other owners, and for
    the vectors of six owners and their addresses."""
    real, swapped = ((card / name).read_bytes() for name in ("held.csv", "swapped.csv"))
    products = [[row["dot_product"] for row in _asked(ask, body)] for body in (real, swapped)]
    chosen = _chosen(real)
    answers = _asked(ask, chosen.encode(), "; verbose=True")
    addresses, entities = (_directions(answers, field) for field in ("ip_embedding", "entity_embedding"))
    names = np.array([row[0] for row in csv.reader(io.StringIO(chosen))])

    page = figure(9.0, 3.6)
    left, right = page.subplots(1, 2, width_ratios=(1.0, 1.2))
    bins = np.linspace(np.quantile(products[1], 0.02), np.quantile(products[0], 0.99), 40)
    for values, label, colour in zip(products, ("real pairs", "other owners"), (MODEL, ODD), strict=True):
        left.hist(np.clip(values, bins[0], bins[-1]), bins, alpha=0.6, label=label, color=colour)
    left.axvline(0, linestyle=":", color=TRUTH, linewidth=1)
    left.set_xlabel("dot_product")
    left.set_ylabel("held-out pairs")
    left.legend()
    middle = addresses.mean(axis=0)
    axes = np.linalg.svd(addresses - middle, full_matrices=False)[2][:2]
    for owner in _OWNERS:
        of = names == owner
        dots = right.scatter(*((addresses[of] - middle) @ axes.T).T, s=12, alpha=0.6, label=owner)
        star = (entities[of][:1] - middle) @ axes.T
        right.scatter(*star.T, s=120, marker="*", color=dots.get_facecolor(), edgecolor="black", alpha=1)
    right.set_xlabel("directions of addresses (dots) and of owners (stars),\n32 numbers seen in two")
    right.set_xticks([])
    right.set_yticks([])
    right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(page, picture)


def _asked(ask: Ask, body: bytes, parameters: str = "") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(ask(body, "text/csv", f"application/json{parameters}"))["predictions"]
    return rows


def _directions(answers: list[dict[str, Any]], field: str) -> NDArray[np.float64]:
    """The vectors of a field, each of length 1."""
    vectors = np.array([row[field] for row in answers])
    found: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def _chosen(real: bytes) -> str:
    """The first held-out pairs of each of the owners, as CSV."""
    kept: dict[str, list[list[str]]] = {owner: [] for owner in _OWNERS}
    for row in csv.reader(io.StringIO(real.decode())):
        if row[0] in kept and len(kept[row[0]]) < _EACH:
            kept[row[0]].append(row)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(row for rows in kept.values() for row in rows)
    return text.getvalue()
