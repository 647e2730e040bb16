"""Which features are kept together: the samples of Kernel SHAP, and what each weighs. Pure.

A player is a feature, or a unit of a text; a coalition keeps some players of a record and takes the others from the
baseline. Weights: Lundberg, Lee, "A unified approach to interpreting model predictions" (NeurIPS 2017), theorem 2; in
pairs with their complements: Covert, Lee, "Improving KernelSHAP" (AISTATS 2021), section 4.2. How many:
``behaviour/06``.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np

#: Beyond this many players 2^F - 2 is more than anybody asks for.
_ENUMERABLE = 30
#: Random draws, as multiples of the coalitions wanted: those that were drawn before count for more, not as new; and
#: how many players' places are drawn at once.
_ROUNDS, _AT_ONCE = 8, 2**21


class Coalitions(NamedTuple):
    """``masks``: bool [n, players], none of them empty or full. ``weights``: float64 [n], their sum is 1."""

    masks: np.ndarray
    weights: np.ndarray


def how_many(players: int, wanted: int | None) -> int:
    """Coalitions for so many players: min(NumberOfSamples or 2F + 2048, 2^F - 2)."""
    asked = wanted or 2 * players + 2048
    return asked if players > _ENUMERABLE else min(asked, 2**players - 2)


def coalitions(players: int, count: int, dice: np.random.Generator) -> Coalitions:
    """``count`` coalitions of two players or more: all of them, if they are that many; else whole sizes from both ends
    as far as that is no more than their share, and the rest at random."""
    if players <= _ENUMERABLE and count >= 2**players - 2:
        return _all(players)
    shares = _shares(players)
    masks, weights, size = [], [], 1
    left, rest = count, 1.0
    while size <= len(shares) and _number(players, size) <= left * shares[size - 1] / rest:
        whole = _of_size(players, size)
        masks.append(whole)
        weights.append(np.full(len(whole), shares[size - 1] / len(whole)))
        left, rest, size = left - len(whole), rest - shares[size - 1], size + 1
    if left and size <= len(shares):
        drawn, times = _drawn(players, left, np.arange(size, len(shares) + 1), shares[size - 1 :], dice)
        masks.append(drawn)
        weights.append(rest * times / times.sum())
    total = np.concatenate(weights)
    return Coalitions(np.concatenate(masks), total / total.sum())


def _shares(players: int) -> np.ndarray:
    """The part of all weight that belongs to each size together with its complement's, from 1 up to half."""
    sizes = np.arange(1, players // 2 + 1)
    weight = (players - 1) / (sizes * (players - sizes)) * np.where(2 * sizes == players, 1.0, 2.0)
    shares: np.ndarray = weight / weight.sum()
    return shares


def _number(players: int, size: int) -> int:
    return comb(players, size) * (1 if 2 * size == players else 2)


def _of_size(players: int, size: int) -> np.ndarray:
    """Every coalition of a size, and the complements."""
    members = np.array(list(combinations(range(players), size)))
    masks = np.zeros((len(members), players), bool)
    np.put_along_axis(masks, members, True, axis=1)
    return masks if 2 * size == players else np.concatenate([masks, ~masks])


def _all(players: int) -> Coalitions:
    """All but the empty and the full one. float64 [2^F - 2] weights."""
    numbers = np.arange(1, 2**players - 1)
    masks = (numbers[:, None] >> np.arange(players)) & 1 == 1
    sizes = np.arange(1, players)
    each = np.array([(players - 1) / (comb(players, size) * size * (players - size)) for size in sizes.tolist()])
    weights = each[masks.sum(1) - 1]
    return Coalitions(masks, weights / weights.sum())


def _drawn(
    players: int, count: int, sizes: np.ndarray, shares: np.ndarray, dice: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Up to ``count`` different coalitions of these sizes and how often each was drawn."""
    times: dict[bytes, int] = {}
    step = max(1, min(count, _AT_ONCE // players))
    for _ in range(_ROUNDS * -(-count // step)):
        picked = dice.choice(sizes, step, p=shares / shares.sum())
        ranks = dice.random((step, players)).argsort(1).argsort(1)
        half = ranks < picked[:, None]
        pairs = np.packbits(np.stack([half, ~half], 1).reshape(-1, players), axis=1)
        for row in pairs:
            key = row.tobytes()
            if key in times or len(times) < count:
                times[key] = times.get(key, 0) + 1
        if len(times) >= count:
            break
    packed = np.frombuffer(b"".join(times), np.uint8).reshape(len(times), -1)
    return np.unpackbits(packed, axis=1, count=players).astype(bool), np.array(list(times.values()), np.float64)
