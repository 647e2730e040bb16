"""CRC-32C (Castagnoli, RFC 3720) of many spans of a buffer at once, as TFRecord frames are checked with.

A CRC is linear: that of a span is the XOR of what each of its bytes contributes, and a contribution depends on nothing
but the byte and how many follow. So blocks of 64 bytes are looked up by column, and a block's sum is then moved by the
number of bytes behind it. All of it is array work: about 100 MB/s, fifty times a loop over bytes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

_POLYNOMIAL = 0x82F63B78
_BLOCK = 64
#: Blocks looked up at a time: their indexes (8 bytes for each byte) stay in the processor's cache.
_AT_ONCE = 1024

Words = npt.NDArray[np.uint32]
Offsets = npt.NDArray[np.int64]


def checksums(buffer: bytes, starts: Offsets, lengths: Offsets) -> Words:
    """The CRC-32C of each span ``buffer[start : start + length]``."""
    content = np.frombuffer(buffer, np.uint8)
    blocks = -(-lengths // _BLOCK)
    span = np.repeat(np.arange(len(starts)), blocks)
    behind = np.repeat(np.cumsum(blocks), blocks) - np.arange(len(span)) - 1  # blocks of the same span that follow
    last = (starts + lengths)[span] - behind * _BLOCK
    parts = [
        _blocks(content, last[at : at + _AT_ONCE], starts[span[at : at + _AT_ONCE]])
        for at in range(0, len(span), _AT_ONCE)
    ]
    moved = _follow(np.concatenate(parts) if parts else np.empty(0, np.uint32), behind * _BLOCK)
    sums = _follow(np.full(len(starts), 0xFFFFFFFF, np.uint32), lengths)
    np.bitwise_xor.at(sums, span, moved)
    return ~sums


def masked(sums: Words) -> Words:
    """CRCs as TFRecord stores them: rotated right by 15 bits, plus a constant (TensorFlow, ``lib/hash/crc32c.h``)."""
    return ((sums >> np.uint32(15)) | (sums << np.uint32(17))) + np.uint32(0xA282EAD8)


@lru_cache(65_536)
def masked_of(content: bytes) -> int:
    """The masked CRC of a few bytes: of a frame's length, and lengths repeat."""
    table, register = _tables()[-1].tolist(), 0xFFFFFFFF
    for byte in content:
        register = table[(register ^ byte) & 0xFF] ^ register >> 8
    return int(masked(np.array([register ^ 0xFFFFFFFF], np.uint32))[0])


def _blocks(content: npt.NDArray[np.uint8], last: Offsets, first: Offsets) -> Words:
    """What the 64 bytes that end at each ``last`` contribute; those before ``first`` belong to others and count 0."""
    at = last[:, None] + np.arange(-_BLOCK, 0)
    seen = np.where(at >= first[:, None], content.take(at, mode="clip"), 0).astype(np.intp)
    columns = np.arange(_BLOCK, dtype=np.intp) << 8
    return np.asarray(np.bitwise_xor.reduce(_tables().reshape(-1).take(seen + columns), axis=1))


def _follow(registers: Words, counts: Offsets) -> Words:
    """Registers after ``counts`` zero bytes each: one step per bit of the largest count."""
    bit = 0
    while (counts >> bit).any():
        registers = np.where(counts >> bit & 1, _apply(_doubled(bit), registers), registers)
        bit += 1
    return registers


def _apply(moves: Words, registers: Words) -> Words:
    low, second, third, top = (registers >> np.uint32(shift) & np.uint32(0xFF) for shift in (0, 8, 16, 24))
    return np.asarray(moves[0][low] ^ moves[1][second] ^ moves[2][third] ^ moves[3][top])


@lru_cache(1)
def _tables() -> Words:
    """[column of a block, byte] -> contribution; the last column is the usual table."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> np.uint32(1) ^ np.uint32(_POLYNOMIAL), table >> np.uint32(1))
    columns = [table]
    for _ in range(_BLOCK - 1):
        columns.append(table[columns[-1] & np.uint32(0xFF)] ^ columns[-1] >> np.uint32(8))
    return np.stack(columns[::-1])


@lru_cache(64)
def _doubled(bit: int) -> Words:
    """[byte of the register, its value] -> the register after ``2 ** bit`` zero bytes."""
    if bit:
        return _apply(_doubled(bit - 1), _doubled(bit - 1))
    table, single = _tables()[-1], np.arange(256, dtype=np.uint32)
    spread = np.stack([single << np.uint32(shift) for shift in (0, 8, 16, 24)])
    return np.asarray(table[spread & np.uint32(0xFF)] ^ spread >> np.uint32(8))
