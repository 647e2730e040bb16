"""What the families' ``show.py`` draw with: one style, small files, the same picture from the same answer.

A ``show.py`` has one function, ``draw(ask, card, picture)``: it asks the live server and draws what it answered.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Asks the live server: a request's body, its content type, what is accepted ("" for the server's choice); its answer.
#: Raises ValueError with the server's words where it refuses.
Ask = Callable[[bytes, str, str], bytes]

#: The colours of the page: of what the model says, of the truth or what was asked, of what stands out.
MODEL, TRUTH, ODD, QUIET = "#1f77b4", "#444444", "#d62728", "#bbbbbb"
LARGEST = 60_000
_DOTS = 100
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.facecolor": "white",
}


def figure(width: float = 7.0, height: float = 3.5) -> Figure:
    """An empty figure of so many inches, a hundred dots each, in the page's style: ``figure().subplots(2, 3)``. Needs
    no display, and nothing has to be closed."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(_STYLE)
    return Figure(figsize=(width, height), dpi=_DOTS, layout="constrained")


def save(drawn: Figure, picture: Path) -> None:
    """Write ``picture``, a PNG of at most ``LARGEST`` bytes, with as many colours as that allows. Raises ValueError for
    one that stays larger."""
    from PIL import Image

    raw = io.BytesIO()
    drawn.savefig(raw, format="png", metadata={"Software": None})
    image = Image.open(raw).convert("RGB")
    for colours in (256, 128, 64, 32, 16):
        packed = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(packed, format="png", optimize=True)
        if packed.tell() <= LARGEST:
            picture.write_bytes(packed.getvalue())
            return
    raise ValueError(f"{picture.name} would have more than {LARGEST} bytes: draw less")
