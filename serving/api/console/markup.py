"""HTML as values. Whatever is not ``Html`` already is escaped: there is no other way into a page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

#: What may stand between tags: text (escaped), HTML, nothing, or several of these.
Content = "str | int | float | Html | None | Iterable[Content]"

#: Elements without an end.
_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


class Html(str):
    """Text that is HTML."""

    __slots__ = ()


def html(content: object) -> Html:
    """Content as HTML."""
    if isinstance(content, Html):
        return content
    if content is None or content is False:
        return Html()
    if isinstance(content, str):
        return Html(escape(content))
    if isinstance(content, int | float):
        return Html(content)
    if isinstance(content, Iterable):
        return Html("".join(map(html, content)))
    raise TypeError(f"{type(content).__name__} is no content of a page")


def el(tag: str, *content: object, **attributes: str | int | float | bool | None) -> Html:
    """An element. A trailing ``_`` of an attribute's name falls away (``class_``), inner ones are hyphens; True is an
    attribute without a value, None and False are none."""
    given = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{given}>")
    return Html(f"<{tag}{given}>{html(content)}</{tag}>")


def _attribute(name: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
