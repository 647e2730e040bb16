"""A front's line to the explain process: calls and the model's answers to them, over ``explain.sock``.

Nothing is asked twice: what ended the process under one attempt would end it again."""

from __future__ import annotations

from serving.api.desk_link import DeskLink


class ExplainLink(DeskLink):
    """The line of one front."""

    busy = "Too many calls are being explained; please try again."
    silent = "The process that computes explanations does not answer."
    unreachable = "The process that computes explanations cannot be reached."
    broken = "The process that computes explanations ended while it worked on this call; it is started anew."
    repeats = False
    most_asked = 64
