"""Which letters each sound is of, and what is made of words never seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.showing import MODEL, ODD, TRUTH, Ask, figure, save

_LISTED = 14


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """The live endpoint's attention for the longest of some held-out words that it says rightly, and a list of words:
    right ones in one colour, wrong ones in another with what the dictionary knows."""
    words = json.loads((card / "words.json").read_bytes())[:60]
    request = {
        "instances": [{"data": " ".join(one["word"]), "configuration": {"attention_matrix": "true"}} for one in words]
    }
    answers = json.loads(ask(json.dumps(request).encode(), "application/json", "application/json"))["predictions"]
    both = list(zip(words, answers, strict=True))
    word, answer = max(
        (pair for pair in both if pair[1]["target"] in pair[0]["known"]),
        key=lambda one: len(one[0]["word"]),
        default=both[0],
    )

    page = figure(9.0, 3.8)
    left, right = page.subplots(1, 2, width_ratios=(1.0, 1.3))
    sounds = answer["target"].split()
    left.imshow(np.array(answer["matrix"]).reshape(len(sounds), -1), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    left.set_xticks(range(len(word["word"])), list(word["word"]))
    left.set_yticks(range(len(sounds)), sounds)
    left.set_title("attention: the letters each sound is of")
    right.set_axis_off()
    for row, (one, said) in enumerate(both[:_LISTED]):
        good, height = said["target"] in one["known"], 1 - (row + 0.5) / _LISTED
        right.text(0.0, height, one["word"], color=TRUTH, va="center", transform=right.transAxes)
        text = said["target"] if good else f"{said['target']}   (known: {one['known'][0]})"
        right.text(0.2, height, text, color=MODEL if good else ODD, va="center", fontsize=8, transform=right.transAxes)
    right.set_title("words it has never seen; red: not as the dictionary knows them", loc="left")
    save(page, picture)
