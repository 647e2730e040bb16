"""What a mail says, apart from how it was sent."""

from __future__ import annotations

import base64

from models.mails import body

HEAD = "From a@b.c  Thu Aug 22 12:36:23 2002\nReturn-Path: <a@b.c>\nSubject: hello\n"


def test_a_plain_body_is_what_follows_the_headers() -> None:
    """No header is part of the text, and runs of blanks are one."""
    assert body(f"{HEAD}\nGood  morning \n\n\n  all\n") == "Good morning\nall"


def test_an_encoded_body_is_decoded() -> None:
    """Spammers hide their words in base64."""
    hidden = base64.b64encode("Ma\xf1ana, cheap".encode("latin-1")).decode()
    assert body(f"{HEAD}Content-Transfer-Encoding: base64\n\n{hidden}\n") == "Ma\xf1ana, cheap"


def test_markup_is_no_text() -> None:
    """HTML gives its words: tags, comments, styles and scripts are left out, entities are characters."""
    page = "<html><head><title>t</title></head><body><!-- no --><p>cats &amp; <b>dogs</b><script>x()</script></body>"
    assert body(f"{HEAD}Content-Type: text/html\n\n{page}\n") == "cats & dogs"


def test_attachments_are_left_out() -> None:
    """Of several parts only those of text are read."""
    parts = "\n--x\nContent-Type: text/plain\n\nsee below\n--x\nContent-Type: image/gif\n\nGIF89a\n--x--\n"
    assert body(f'{HEAD}Content-Type: multipart/mixed; boundary="x"\n{parts}') == "see below"
