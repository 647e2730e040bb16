"""Who announces which addresses: pairs of an owner's name and an address of one of its networks."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data import SEED

OWNERS = 200
EACH = 175
HELD_OUT = 0.2
_DATABASE = "geoip2fast-asn.dat.gz"


@dataclass(frozen=True, slots=True)
class Pairs:
    """``names``: of the owners; ``owner``: int64 ``[pairs]``, whose; ``address``: int64 ``[pairs]``, as a number."""

    names: tuple[str, ...]
    owner: NDArray[np.int64]
    address: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.owner)

    def part(self, chosen: slice) -> Pairs:
        """Some of the pairs, of the same owners."""
        return Pairs(self.names, self.owner[chosen], self.address[chosen])

    def rows(self) -> list[tuple[str, str]]:
        """Each pair as it is asked for: a name, an address with dots."""
        return [
            (self.names[owner], str(IPv4Address(int(address))))
            for owner, address in zip(self.owner, self.address, strict=True)
        ]

    def swapped(self) -> Pairs:
        """Each address beside the owner of another pair, never its own."""
        dice = np.random.default_rng(SEED)
        wrong = dice.permutation(self.owner)
        while (same := wrong == self.owner).any():
            wrong[same] = dice.integers(0, len(self.names), same.sum())
        return Pairs(self.names, wrong, self.address)


@functools.cache
def split() -> tuple[Pairs, Pairs]:
    """Pairs to train on and pairs held out: of each of the 200 owners with the most networks 175 networks, drawn at
    random, and of each network one address. No network is in both."""
    names, owner, start, length = _table()
    counts = np.bincount(owner, minlength=len(names))
    counts[[at for at, name in enumerate(names) if name == "<unknown>"]] = 0
    most = np.argsort(-counts, kind="stable")[:OWNERS]
    dice = np.random.default_rng(SEED)
    drawn = [dice.choice(np.flatnonzero(owner == one), EACH, replace=False) for one in most]
    order = dice.permutation(OWNERS * EACH)
    networks = np.concatenate(drawn)[order]
    within = (dice.random(len(networks)) * 2.0 ** (32 - length[networks])).astype(np.int64)
    whole = Pairs(
        tuple(names[one] for one in most), np.repeat(np.arange(OWNERS), EACH)[order], start[networks] + within
    )
    held = round(HELD_OUT * len(whole))
    return whole.part(slice(held, None)), whole.part(slice(held))


def _table() -> tuple[list[str], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Names of owners; of each IPv4 network its owner's number, its first address and the length of its prefix."""
    import geoip2fast
    from geoip2fast import geoip2fast as loaded

    geoip2fast.GeoIP2Fast(geoip2fast_data_file=str(Path(geoip2fast.__file__).parent / _DATABASE))
    columns = (loaded.mainListIDASN, loaded.mainListFirstIPASN, loaded.mainListNetlengthASN)
    owner, start, length = (np.concatenate([np.asarray(chunk, np.int64) for chunk in column]) for column in columns)
    return list(loaded.mainListNamesASN), owner, start, length
