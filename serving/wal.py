"""Does a SQLite journal lack what was once written to it? SQLite ends its reading at the first frame that is not as it
was written: right after a power cut, where that is the transaction that was under way, and silent where a bit has
turned before transactions that were finished. (Format: sqlite.org/fileformat2.html, The Write-Ahead Log.)"""

from __future__ import annotations

import struct
import sys
from array import array
from pathlib import Path

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = 0x377F0682
#: Of a header and of a frame's header, the bytes that are summed.
_SUMMED, _SUMMED_OF_FRAME = 24, 8
_WORD = 0xFFFFFFFF
#: Page sizes that there are, and ours.
_PAGES, _USUAL_PAGE = frozenset(2**power for power in range(9, 17)), 4096
#: Bytes; a longer one is not looked at, as that would take seconds.
_LONGEST = 2**26

Sums = tuple[int, int]


def lacks_commits(journal: Path) -> bool:
    """Are there finished transactions behind a frame that cannot be read? A commit is flushed before the next
    transaction is written: behind a frame that a power cut left half-written there is no commit but its own. Raises
    ``OSError``."""
    try:
        if journal.stat().st_size > _LONGEST:
            return False
        content = journal.read_bytes()
    except FileNotFoundError:
        return False
    return _commits_behind_damage(content) > 1


def _commits_behind_damage(content: bytes) -> int:
    if len(content) < _HEADER.size + _FRAME.size:
        return 0
    magic, _, page, _, *salts, one, two = _HEADER.unpack_from(content)
    sums = _add(content[:_SUMMED], (0, 0), magic)
    sound = sums == (one, two)
    if not sound:  # the first frame is of the newest generation, too
        salts = list(_FRAME.unpack_from(content, _HEADER.size)[2:4])
    size, commits = _FRAME.size + (page if page in _PAGES else _USUAL_PAGE), 0
    for at in range(_HEADER.size, len(content) - size + 1, size):
        _, length, *found, one, two = _FRAME.unpack_from(content, at)
        if found != salts:  # left of an older generation, or damaged
            sound = False
        if sound:
            summed = content[at : at + _SUMMED_OF_FRAME] + content[at + _FRAME.size : at + size]
            sums = _add(summed, sums, magic)
            sound = sums == (one, two)
        commits += not sound and found == salts and length > 0
    return commits


def _add(data: bytes, sums: Sums, magic: int) -> Sums:
    """SQLite's checksum, continued; the magic number's last bit tells the byte order of its words."""
    words = array("I", data)
    if (sys.byteorder == "big") != bool(magic & 1):
        words.byteswap()
    one, two = sums
    each = iter(words)
    for first, second in zip(each, each, strict=True):
        one = (one + first + two) & _WORD
        two = (two + second + one) & _WORD
    return one, two
