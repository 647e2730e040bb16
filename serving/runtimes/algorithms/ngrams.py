"""fastText's n-grams of words and of letters, as hashes (``dictionary.cc``): a hash modulo the number of buckets is the
n-gram's bucket. In bounded pieces: a text of megabytes without a space costs seconds and little memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

_OFFSET, _PRIME = 2166136261, 16777619  # FNV-1a, 32 bits
_WORD_FACTOR = np.uint64(116049371)
_REMEMBERED_BYTES = 64
_LETTERS_AT_ONCE = 1 << 15


def of_word(word: bytes) -> int:
    """A word's hash as the signed number that n-grams of words are made of."""
    return _remembered(word) if len(word) <= _REMEMBERED_BYTES else _hash(word)


def _hash(word: bytes) -> int:
    value = _OFFSET
    for byte in word:  # bytes are signed there: those from 0x80 on spread their sign over all 32 bits
        value = (value ^ (byte if byte < 0x80 else byte | 0xFFFFFF00)) * _PRIME & 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


_remembered = lru_cache(maxsize=1 << 14)(_hash)


def of_words(hashes: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """The hashes (uint64) of all n-grams of 2 to ``most`` words, from the words' own (int64), one array for each n."""
    signed = hashes.view(np.uint64)
    grams = signed
    for n in range(2, min(most, len(hashes)) + 1):
        grams = grams[:-1] * _WORD_FACTOR + signed[n - 1 :]
        yield grams


def of_letters(words: list[bytes], shortest: int, longest: int) -> Iterator[np.ndarray]:
    """The hashes (uint32) of all n-grams of ``shortest`` to ``longest`` letters of ``<word>``, without the single ``<``
    and ``>``; a letter is one of Unicode's. Arrays of at most 32,768."""
    text = np.frombuffer(b"".join([b"<%b>" % word for word in words]), np.uint8)
    starts = np.flatnonzero((text & 0xC0) != 0x80)
    sizes = np.diff(starts, append=len(text)).astype(np.uint8)
    ends = np.cumsum([len(word) + 2 for word in words])
    limits = np.searchsorted(starts, ends)[np.searchsorted(ends, starts, side="right")]  # one past its word's last
    for first in range(0, len(starts), _LETTERS_AT_ONCE):
        heads = np.arange(first, min(first + _LETTERS_AT_ONCE, len(starts)))
        hashes = np.full(len(heads), _OFFSET, np.uint32)
        for n in range(1, longest + 1):
            fits = heads + n <= limits[heads]
            heads, hashes = heads[fits], hashes[fits]
            if not len(heads):
                break
            last = heads + n - 1
            for byte in range(int(sizes[last].max())):
                more = sizes[last] > byte
                signed = text[starts[last[more]] + byte].view(np.int8).astype(np.int32).view(np.uint32)
                hashes[more] = (hashes[more] ^ signed) * np.uint32(_PRIME)
            if n == 1:
                inner = (heads + 1 < limits[heads]) & (heads > 0) & (limits[heads - 1] == limits[heads])
                if shortest <= 1:
                    yield hashes[inner]
            elif n >= shortest:
                yield hashes.copy()
