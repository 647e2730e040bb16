"""``application/x-npy`` and ``application/x-npz``: numpy's own files, of plain numbers and text only.

The header is read here, not by numpy: a regular expression instead of Python's literal parser, and the size it
declares is compared with the bytes at hand before anything is allocated. Object arrays are pickles, so refused.
Format: numpy/lib/_format_impl.py.
"""

from __future__ import annotations

import io
import math
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from serving.codecs.base import Decoded, InputSpec
from serving.codecs.fit import RowPlan, cast, decoded
from serving.errors import BadInput

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 4096
_DESCR = re.compile(r"""['"]descr['"]\s*:\s*['"]([<>|=]?[fiubU]\d{1,6})['"]""")
_ORDER = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)""")
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(([\d\s,]{0,300})\)""")
#: Of all members of an npz together, unpacked.
MAX_UNPACKED = 1 << 28
_MAX_MEMBERS = 64


class _Header(NamedTuple):
    dtype: np.dtype[np.generic]
    fortran: bool
    shape: tuple[int, ...]
    offset: int


def pack(body: bytes, plan: RowPlan) -> bytes | None:
    """Rows in C order of just the model's dtype and shape -> their bytes, else None."""
    try:
        header = _header(body)
    except BadInput:
        return None
    if header.dtype != plan.dtype or header.fortran or header.shape[1:] != plan.shape or not header.shape[:1]:
        return None
    return body[header.offset :] or None


def decode(body: bytes, params: Mapping[str, str], spec: InputSpec) -> Decoded:
    """One array for a model with one input. Raises ``BadInput``."""
    if len(spec.tensors) > 1:
        raise BadInput("the model has several inputs: send application/x-npz with one member per input")
    return decoded(cast(_read(body), spec.tensors[0]))


def decode_npz(body: bytes, params: Mapping[str, str], spec: InputSpec) -> Decoded:
    """One member per input, by name; a model with one input takes a single member of any name. Raises ``BadInput``."""
    arrays = dict(_members(body))
    tensors = spec.tensors
    if len(tensors) == 1 and len(arrays) == 1:
        return decoded(cast(next(iter(arrays.values())), tensors[0]))
    if arrays.keys() != {tensor.name for tensor in tensors}:
        wanted = ", ".join(sorted(tensor.name for tensor in tensors))
        raise BadInput(f"the archive must hold just the members {wanted}")
    inputs = {tensor.name: cast(arrays[tensor.name], tensor) for tensor in tensors}
    return decoded(inputs if len(tensors) > 1 else inputs[tensors[0].name])


def _read(body: bytes) -> np.ndarray:
    header = _header(body)
    array = np.frombuffer(body, header.dtype, offset=header.offset)
    # numpy stores code points as 32-bit numbers and trips over impossible ones only when they are read.
    if header.dtype.kind == "U" and (array.view(f"{header.dtype.str[0]}u4") > sys.maxunicode).any():
        raise BadInput("the npy file holds what is no character")
    return array.reshape(header.shape, order="F" if header.fortran else "C")


def _header(body: bytes) -> _Header:
    if body[:6] != _MAGIC or len(body) < 12:
        raise BadInput("the body is not an npy file")
    long = body[6] > 1
    start = 12 if long else 10
    length = int.from_bytes(body[8:start], "little")
    if length > _MAX_HEADER or start + length > len(body):
        raise BadInput("the npy header is too long or cut short")
    dtype, fortran, shape = _parse_header(body[start : start + length])
    if math.prod(shape) * dtype.itemsize != len(body) - start - length:
        raise BadInput(f"the npy header says {dtype.name} {list(shape)}, the body holds another number of bytes")
    return _Header(dtype, fortran, shape, start + length)


@lru_cache(maxsize=256)
def _parse_header(header: bytes) -> tuple[np.dtype[np.generic], bool, tuple[int, ...]]:
    text = header.decode("latin-1")
    descr, order, shape = _DESCR.search(text), _ORDER.search(text), _SHAPE.search(text)
    if descr is None or order is None or shape is None:
        raise BadInput("the npy header must describe an array of numbers or text; objects and records are refused")
    try:
        dtype = np.dtype(descr[1])
        sizes = tuple(int(size) for size in shape[1].split(",") if size.strip())
    except (TypeError, ValueError):
        raise BadInput("the npy header has a dtype or shape that is none") from None
    if not dtype.itemsize or len(sizes) > 32:
        raise BadInput("the npy header has a dtype or shape that is none")
    return dtype, order[1] == "True", sizes


def _members(body: bytes) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            if not members or len(members) > _MAX_MEMBERS or len({m.filename for m in members}) != len(members):
                raise BadInput(f"the archive must hold 1 to {_MAX_MEMBERS} members of different names")
            room = MAX_UNPACKED
            for member in members:
                content = _member(archive, member, room)
                room -= len(content)
                yield member.filename.removesuffix(".npy"), _read(content)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, IndexError, OverflowError):
        # What zipfile raises on damaged, encrypted and unknown members; it documents only the first.
        raise BadInput("the body is not a readable npz archive") from None


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, room: int) -> bytes:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadInput("the archive uses a compression that numpy does not write")
    with archive.open(member) as stream:
        # One byte over the limit tells a lie in the declared size from the truth.
        content = stream.read(room + 1)
    if len(content) > room:
        raise BadInput(f"the archive unpacks to more than {MAX_UNPACKED} bytes")
    return content
