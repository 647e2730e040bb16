"""The two languages in which a batch job's filters, join and inference ids work: rows of CSV, and JSON documents.

What is not selected, added or overwritten stays as it was written: CSV cells keep their quotes, a joined JSON object
its text, and every number its digits, for none goes through a float.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any, NoReturn, Protocol, TypeVar

import orjson

from serving.errors import ValidationError
from serving.jobs.jsonpath import Index, Path, PathMissing, pick

Texts = list[bytes]
Filter = Callable[[Texts], Texts]
T = TypeVar("T")

CSV, JSON, JSON_LINES = "text/csv", "application/json", "application/jsonlines"
_ALIASES = {"application/x-jsonlines": JSON_LINES, "application/x-ndjson": JSON_LINES}

_OUTPUT, _INPUT = "SageMakerOutput", "SageMakerInput"
_ID, _TIME = "SageMakerInferenceId", "SageMakerInferenceTime"


def media_type(header: str) -> str:
    """A Content-Type's or Accept's type alone, in small letters; JSON Lines by one name of its several."""
    name = header.partition(";")[0].strip().lower()
    return _ALIASES.get(name, name)


class BadText(Exception):
    """The ``index``-th of the texts given cannot be worked with; ``str`` says why."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(why)
        self.index = index


class Language(Protocol):
    """One record's text in, one record's text out, for many at once. All raise ``BadText``."""

    def filter(self, path: Path, field: str) -> Filter:
        """A filter, compiled. Raises ``ValidationError`` (naming ``field``) for one that fits no record of this
        language."""

    def joined(self, inputs: Texts, answers: Texts) -> Texts:
        """Each record with the model's answer to it."""

    def identified(self, texts: Texts, ids: Iterable[str], time: str) -> Texts:
        """Each result with its inference id and the job's time."""


def _each(function: Callable[[T], bytes], items: Iterable[T]) -> Texts:
    texts: Texts = []
    try:
        for item in items:
            texts.append(function(item))  # how many there are says which one failed
    except (PathMissing, ValueError) as error:
        raise BadText(len(texts), str(error)) from None
    except RecursionError:
        raise BadText(len(texts), "it is nested too deeply") from None
    return texts


# --- CSV ------------------------------------------------------------------------------------------------------------


class Csv:
    """Rows without their newlines. A row is an array of its cells, as they are written."""

    def filter(self, path: Path, field: str) -> Filter:
        """Cells by index: the only form that a row can answer."""
        columns = path.columns
        if columns is None:
            raise ValidationError(
                f"{field} {path.text!r} selects by name or more than once; of CSV, only indexes can be."
            )
        if columns == (slice(None),):
            return lambda rows: rows
        plain = _cutter(columns)

        def quoted(row: bytes) -> bytes:
            return b",".join(pick(cells(row), columns))

        def cut(rows: Texts) -> Texts:
            if not [row for row in rows if b'"' in row]:
                with suppress(IndexError, PathMissing):  # the other way says which row and why
                    return list(map(plain, rows))
            return _each(quoted, rows)

        return cut

    def joined(self, inputs: Texts, answers: Texts) -> Texts:
        """The input's cells, then the model's."""
        return list(map(b",".join, zip(inputs, answers, strict=True)))

    def identified(self, texts: Texts, ids: Iterable[str], time: str) -> Texts:
        """Two more columns."""
        end = f",{time}".encode()
        return [b"%b,%b%b" % (row, id_.encode(), end) for row, id_ in zip(texts, ids, strict=True)]


def woven(inputs: Texts, answers: Texts) -> bytes:
    """``Csv.joined`` as one text, a newline after each row: four times as fast as row by row, and most jobs' way."""
    parts = [b","] * (4 * len(inputs))
    parts[::4], parts[2::4], parts[3::4] = inputs, answers, [b"\n"] * len(inputs)
    return b"".join(parts)


def cells(row: bytes) -> Texts:
    """A row's cells; commas inside quotes are not between cells. Raises ``ValueError`` for a quote left open."""
    parts = row.split(b",")
    if b'"' not in row:
        return parts
    found: Texts = []
    open_: Texts = []
    for part in parts:
        odd = part.count(b'"') % 2
        if not open_ and not odd:
            found.append(part)
            continue
        open_.append(part)
        if odd and len(open_) > 1:
            found.append(b",".join(open_))
            open_ = []
    if open_:
        raise ValueError("a quote is not closed (a cell cannot hold a newline)")
    return found


def _cutter(columns: Sequence[Index]) -> Callable[[bytes], bytes]:
    """Those columns of a row without quotes: the common forms look at no more of it than they need."""
    first = columns[0]
    if len(columns) == 1 and isinstance(first, slice):
        start, stop = first.start or 0, first.stop
        if start == 1 and stop is None:
            return lambda row: row.partition(b",")[2]
        if start == 0 and stop == -1:
            return lambda row: row.rpartition(b",")[0]
        if start > 0 and stop is None:
            return lambda row: b"".join(row.split(b",", start)[start:])
        return lambda row: b",".join(row.split(b",")[first])
    if len(columns) == 1 and isinstance(first, int):
        return lambda row: row.split(b",")[first]
    if not any(isinstance(index, slice) for index in columns):
        chosen = itemgetter(*columns)
        return lambda row: b",".join(chosen(row.split(b",")))
    return lambda row: b",".join(pick(row.split(b","), columns))


# --- JSON -----------------------------------------------------------------------------------------------------------


class Json:
    """JSON documents: the lines of JSON Lines, or whole objects."""

    def filter(self, path: Path, field: str) -> Filter:
        """What a filter selects, as JSON; a single value as itself."""
        if path.whole:
            return lambda texts: texts
        return lambda texts: _each(lambda text: written(path.select(read(text))), texts)

    def joined(self, inputs: Texts, answers: Texts) -> Texts:
        """An object gets one more member; anything else becomes an object of input and output."""
        return _each(lambda pair: _join(*pair), zip(inputs, answers, strict=True))

    def identified(self, texts: Texts, ids: Iterable[str], time: str) -> Texts:
        """Two more members; a result that is no object becomes the member ``SageMakerOutput`` beside them."""
        quoted = orjson.dumps(time)

        def identify(pair: tuple[bytes, str]) -> bytes:
            return _with_members(pair[0], {_ID: orjson.dumps(pair[1]), _TIME: quoted}, _OUTPUT)

        return _each(identify, zip(texts, ids, strict=True))


def _join(text: bytes, answer: bytes) -> bytes:
    try:
        _checked(answer)
    except ValueError as error:
        raise ValueError(f"of the model's answer: {error}") from None
    return _with_members(text, {_OUTPUT: answer.strip()}, _INPUT)


def _with_members(text: bytes, members: dict[str, bytes], name: str) -> bytes:
    """An object's text with these members (name -> JSON), in place of any it has; another value's under ``name``."""
    document = _checked(text)
    if not isinstance(document, dict):
        return _object({name: text.strip(), **members})
    if members.keys().isdisjoint(document):
        return b"%b%b%b" % (text.strip()[:-1], b"," if document else b"", _object(members)[1:])
    return written(read(text) | {key: orjson.Fragment(value) for key, value in members.items()})


def _checked(text: bytes) -> Any:
    """A document of which only the outermost kind and its members' names are of interest."""
    try:
        return orjson.loads(text)
    except ValueError:
        return read(text)  # numbers that no float holds are JSON all the same


def _object(members: dict[str, bytes]) -> bytes:
    return b"{%b}" % b",".join([b'"%b":%b' % (key.encode(), value) for key, value in members.items()])


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


#: Numbers stay as they are written.
_DECODER = json.JSONDecoder(parse_float=orjson.Fragment, parse_int=orjson.Fragment, parse_constant=_refuse)


def read(text: bytes) -> Any:
    """A document in which numbers are their own text. Raises ``ValueError`` or ``RecursionError``."""
    try:
        return _DECODER.decode(text.decode())
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON (character {error.pos + 1})") from None


def written(value: Any) -> bytes:
    """JSON text of what ``read`` gives, without spaces. Raises ``ValueError`` for what cannot be written."""
    try:
        return orjson.dumps(value)
    except TypeError:
        raise ValueError("it is nested too deeply, or holds half of a surrogate pair") from None
