"""What the texts of a column are: whole numbers, other numbers, text (``behaviour/06``, "Inference is by text").

The expressions are those of the open-source Deequ library that SageMaker's analyser is built on. They are slow: most
chunks are told to be nothing but numbers of the usual spelling without them, and otherwise each different text is
looked at once. ``nan`` is a missing value, as it is for this server's codecs; ``inf`` is text, as Deequ has it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from serving.monitor.kll import Numbers

Type = Literal["Integral", "Fractional", "String", "Unknown"]

INTEGRAL = r"^(-|\+)? ?\d+$"
FRACTIONAL = r"^(-|\+)? ?\d+((\.\d+)|((?:\.\d+)?[Ee][-+]?\d+))$"
_PLAIN = r"^-?\d+(\.\d+)?$"
_NAN = r"(?i)^[-+]?nan$"
_DOT, _E, _LOWER = ord("."), ord("e"), 0x20
#: Byte -> may it be part of a number?
_OF_NUMBERS = np.isin(np.arange(256), np.frombuffer(b"0123456789+-.eE", np.uint8))


class Kinds(NamedTuple):
    """How many values of a column are of which type."""

    integral: int = 0
    fractional: int = 0
    text: int = 0

    def plus(self, other: Kinds) -> Kinds:
        """Those of another chunk too."""
        return Kinds(*(one + two for one, two in zip(self, other, strict=True)))

    @property
    def present(self) -> int:
        """All of them."""
        return sum(self)

    @property
    def type(self) -> Type:
        """What the column is: text as soon as one value is (Deequ, ``DataType``)."""
        if self.text:
            return "String"
        if self.fractional:
            return "Fractional"
        return "Integral" if self.integral else "Unknown"


class Told(NamedTuple):
    """A chunk of a column: how many values of which type, the finite numbers, and all values that are there."""

    kinds: Kinds
    numbers: Numbers
    present: pa.Array


def told_apart(values: pa.Array) -> Told:
    """What the texts of a chunk are; none of them is null."""
    return _all_numbers(values) or _one_by_one(values)


# --- nothing but numbers --------------------------------------------------------------------------------------------


def _all_numbers(values: pa.Array) -> Told | None:
    """A chunk of nothing but finite numbers, spelled as the expressions have it; None for any other."""
    text, starts, ends = _bytes(values)
    if not _OF_NUMBERS[text].all():  # an error of the cast costs as much as ten casts
        return None
    try:
        numbers: Numbers = pc.cast(values, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    exponents = np.flatnonzero((text | _LOWER) == _E)
    if not np.isfinite(numbers).all() or not (
        _usual(text, starts, ends) and _are_fractional(values, starts, exponents)
    ):
        return None
    whole = np.trunc(numbers) == numbers
    integral = int(np.count_nonzero(whole))
    if integral and (len(exponents) or _DOT in text):
        candidates = values if integral == len(values) else values.filter(pa.array(whole))
        integral = len(candidates) - _count(pc.match_substring_regex(candidates, r"[.eE]"))
    return Told(Kinds(integral, len(values) - integral), numbers, values)


def _usual(text: NDArray[np.uint8], starts: NDArray[np.int32], ends: NDArray[np.int32]) -> bool:
    """Has every number, which it is known to be, a digit at either end, but for a sign?"""
    if _DOT not in text:
        return True
    first = text[starts]
    signed = starts[(first == ord("-")) | (first == ord("+"))] + 1
    return not ((first == _DOT).any() or (text[ends - 1] == _DOT).any() or (text[signed] == _DOT).any())


def _are_fractional(values: pa.Array, starts: NDArray[np.int32], exponents: NDArray[np.int64]) -> bool:
    """Are the numbers with an exponent, at these places of the text, spelled as the expression has it?"""
    if not len(exponents):
        return True
    found = values.take(pa.array(np.unique(np.searchsorted(starts, exponents, side="right") - 1)))
    return _count(pc.match_substring_regex(found, FRACTIONAL)) == len(found)


def _bytes(values: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
    """The text of all values in a row, and where each starts and ends in it."""
    _, offsets, text = values.buffers()
    places = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    whole = np.frombuffer(text, np.uint8)[places[0] : places[-1]]
    places = places - places[0]
    return whole, places[:-1], places[1:]


# --- any text -------------------------------------------------------------------------------------------------------


def _one_by_one(values: pa.Array) -> Told:
    """Any chunk: each different text once, and those that are no plain numbers by the expressions."""
    found = values.value_counts()
    texts, times = found.field("values"), found.field("counts").to_numpy()
    plain = pc.match_substring_regex(texts, _PLAIN)
    odd = pc.invert(plain)
    nan = _where(odd, texts, _NAN)
    integral = pc.or_(_where(odd, texts, INTEGRAL), pc.and_(plain, pc.invert(pc.match_substring(texts, "."))))
    number = pc.or_(pc.or_(plain, integral), _where(odd, texts, FRACTIONAL))
    counts = [int(times[_mask(one)].sum()) for one in (integral, number, pc.invert(nan))]
    numbers, finite = _numbers(texts.filter(number))
    if _count(nan):
        values = values.filter(pc.invert(pc.is_in(values, value_set=texts.filter(nan))))
    kinds = Kinds(counts[0], counts[1] - counts[0], counts[2] - counts[1])
    return Told(kinds, np.repeat(numbers, times[_mask(number)][finite]), values)


def _where(chosen: pa.Array, texts: pa.Array, expression: str) -> pa.Array:
    """Which of the chosen texts are so; the others are not looked at."""
    found = np.zeros(len(texts), bool)
    found[_mask(chosen)] = _mask(pc.match_substring_regex(texts.filter(chosen), expression))
    return pa.array(found)


def _numbers(texts: pa.Array) -> tuple[Numbers, NDArray[np.bool_]]:
    """The numbers that are finite, and which those are; a space behind the sign is part of none."""
    texts = pc.replace_substring(texts, " ", "")
    try:
        found: Numbers = pc.cast(texts, pa.float64()).to_numpy()
    except pa.ArrowInvalid:  # too large for a float
        found = np.array([float(text) for text in texts.to_pylist()])
    finite = np.isfinite(found)
    return found[finite], finite


def _mask(found: pa.Array) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
    return mask


def _count(found: pa.Array) -> int:
    return int(pc.sum(found).as_py() or 0)
