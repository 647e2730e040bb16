"""The topics by their leading words, and which mails they are of, as LDA's picture shows them."""

from __future__ import annotations

from pathlib import Path

from models.lda.show import draw_topics
from models.showing import Ask


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """Asks the live endpoint for the weights of some hundred held-out mails, and draws their mean by kind of mail."""
    draw_topics(ask, card, picture, "topic_weights")
