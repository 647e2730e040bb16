"""AWS's older wire form: a form's pairs in, XML out. (AWS query protocol; boto3 before 1.42 speaks it to CloudWatch.)

::

    Action=PutMetricAlarm&Version=2010-08-01&AlarmName=high&Dimensions.member.1.Name=EndpointName&…

The pairs become what the JSON form would have carried: which of them are numbers, lists or times, the model knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from serving.api import shapes
from serving.errors import Unreadable

CONTENT_TYPE = "application/x-www-form-urlencoded"
ANSWER_TYPE = "text/xml"

#: Pairs of one form (1,000 data with 30 dimensions each have some more), and steps of a name.
_MOST_PAIRS, _DEEPEST = 100_000, 16
_LIST, _MAP = "member", "entry"
_INDEX = re.compile(r"[1-9][0-9]{0,5}")
#: What XML 1.0 cannot say, however it is escaped.
_UNSPEAKABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


_NAMED = re.compile(r"(?:^|&)(Action|Version)=([0-9A-Za-z-]{1,128})(?=&|$)")


def is_form(content_type: str) -> bool:
    """Does a request with this Content-Type carry a form?"""
    return content_type.partition(";")[0].strip().lower() == CONTENT_TYPE


def named(body: str) -> tuple[str, str]:
    """Action and Version of a form, empty where it has none; of one given twice the last counts."""
    found = dict(_NAMED.findall(body))
    return found.get("Action", ""), found.get("Version", "")


def params(body: str, node: shapes.Node) -> dict[str, Any]:
    """The form as the JSON object that it stands for, without Action and Version. A text that does not read as what
    the model wants stays a text, for the schema to refuse. Raises ``Unreadable``."""
    try:
        pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=_MOST_PAIRS, errors="strict")
    except ValueError:  # UnicodeDecodeError is one
        raise Unreadable("The request body is not a valid form.") from None
    tree: dict[str, Any] = {}
    for name, value in pairs:
        _plant(tree, name.split("."), value)
    tree.pop("Action", None)
    tree.pop("Version", None)
    read: dict[str, Any] = _value(tree, node)
    return read


def _plant(tree: dict[str, Any], steps: list[str], value: str) -> None:
    if len(steps) > _DEEPEST:
        raise Unreadable("The request body is not a valid form: a name has too many steps.")
    for step in steps[:-1]:
        tree = tree.setdefault(step, {})
        if not isinstance(tree, dict):
            raise Unreadable("The request body is not a valid form: a name stands for a value and for a structure.")
    if isinstance(tree.get(steps[-1]), dict):
        raise Unreadable("The request body is not a valid form: a name stands for a value and for a structure.")
    tree[steps[-1]] = value


def _value(given: Any, node: shapes.Node) -> Any:
    """What a branch of the form, or a leaf, stands for. An empty text is how an empty list is sent."""
    if isinstance(given, str):
        empty = not given and isinstance(node, shapes.List | shapes.Map | shapes.Structure)
        return ([] if isinstance(node, shapes.List) else {}) if empty else _plain(given, node)
    if isinstance(node, shapes.Structure):
        members = node.members
        return {name: _value(one, members[name]) if name in members else one for name, one in given.items()}
    if isinstance(node, shapes.List):
        return [_value(one, node.item) for one in _items(given, _LIST)]
    if isinstance(node, shapes.Map):
        pairs = [one for one in _items(given, _MAP) if isinstance(one, dict)]
        return {str(one.get("key", "")): _value(one.get("value", ""), node.value) for one in pairs}
    return given


def _items(given: Mapping[str, Any], word: str) -> list[Any]:
    """``member.1``, ``member.2``, … in the order of their numbers, which may have gaps."""
    numbered = given.get(word)
    if set(given) != {word} or not isinstance(numbered, dict):
        raise Unreadable(f"The request body is not a valid form: a list's items are named .{word}.1 and so on.")
    if not all(_INDEX.fullmatch(number) for number in numbered):
        raise Unreadable("The request body is not a valid form: a list's items are numbered from 1.")
    return [numbered[number] for number in sorted(numbered, key=int)]


def _plain(text: str, node: shapes.Node) -> Any:
    if isinstance(node, shapes.Boolean):
        return {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(node, shapes.Number) and "_" not in text:  # Python's own numbers may have some
        try:
            return int(text) if node.whole else float(text)
        except ValueError:
            return text
    return text


# --- answers ----------------------------------------------------------------------------------------------------------


def answer(operation: str, namespace: str, node: shapes.Node | None, value: Mapping[str, Any] | None, id: str) -> bytes:
    """An answer's XML. ``value``: as the JSON form would give it; ``id``: of the request."""
    result = "" if node is None else f"<{operation}Result>{_xml(value or {}, node)}</{operation}Result>"
    meta = f"<ResponseMetadata><RequestId>{escape(id)}</RequestId></ResponseMetadata>"
    return f'<{operation}Response xmlns="{namespace}">{result}{meta}</{operation}Response>'.encode()


def failure(namespace: str, code: str, message: str, sender: bool, id: str) -> bytes:
    """An error's XML. ``sender``: it is the caller's fault."""
    error = (
        f"<Error><Type>{'Sender' if sender else 'Receiver'}</Type><Code>{escape(code)}</Code>"
        f"<Message>{_text(message)}</Message></Error>"
    )
    request = f"<RequestId>{escape(id)}</RequestId>"
    return f'<ErrorResponse xmlns="{namespace}">{error}{request}</ErrorResponse>'.encode()


def _xml(value: Any, node: shapes.Node) -> str:
    if isinstance(node, shapes.Structure):
        known = ((name, one) for name, one in value.items() if name in node.members)
        return "".join(f"<{name}>{_xml(one, node.members[name])}</{name}>" for name, one in known)
    if isinstance(node, shapes.List):
        return "".join(f"<{_LIST}>{_xml(one, node.item)}</{_LIST}>" for one in value)
    if isinstance(node, shapes.Map):
        pairs = ((_text(str(key)), _xml(one, node.value)) for key, one in value.items())
        return "".join(f"<{_MAP}><key>{key}</key><value>{one}</value></{_MAP}>" for key, one in pairs)
    if isinstance(node, shapes.Boolean):
        return "true" if value else "false"
    if isinstance(node, shapes.Timestamp):
        moment = datetime.fromtimestamp(value, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(node, shapes.Number):
        return repr(int(value)) if node.whole else repr(float(value))
    return _text(str(value))


def _text(value: str) -> str:
    return escape(_UNSPEAKABLE.sub("\ufffd", value))
