"""IP Insights' recipe: pairs, how they are told apart, and that the server finds what training meant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ip_insights import train
from models.ip_insights.pairs import EACH, OWNERS, Pairs, split
from serving.runtimes.algorithms import ipinsights

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@given(SCORES, SCORES)
def test_auc_is_how_often_the_real_pair_wins(real: list[int], swapped: list[int]) -> None:
    """Over all couples, a draw counting half."""
    wins = [(one > other) + (one == other) / 2 for one in real for other in swapped]
    assert sum(wins) / len(wins) == pytest.approx(train.auc(np.array(real), np.array(swapped)))


def test_a_swapped_pair_is_never_a_real_one() -> None:
    """Each address is beside another owner, whoever has most of the pairs."""
    owner = np.array([0] * 50 + [1, 2], np.int64)
    part = Pairs(("a", "b", "c"), owner, np.arange(52))
    assert (part.swapped().owner != owner).all()
    assert (part.swapped().address == part.address).all()


@given(st.lists(st.text(max_size=12), min_size=1, max_size=5))
def test_the_server_finds_the_vector_that_was_trained(names: list[str]) -> None:
    """Both hash a name to the same bucket."""
    assert train.buckets_of(names).tolist() == [ipinsights.bucket(name, train.VECTORS) for name in names]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5))
def test_the_server_sees_the_bits_that_were_trained(addresses: list[int]) -> None:
    """Both write an address as the same 32 numbers."""
    packed = b"".join(address.to_bytes(4, "big") for address in addresses)
    assert (train.bits_of(np.array(addresses)) == ipinsights.bits(packed)).all()


def test_owners_have_as_many_networks_each_and_none_is_in_both_parts() -> None:
    """The table is the installed package's."""
    pytest.importorskip("geoip2fast")
    trained, held = split()
    assert [EACH] * OWNERS == np.bincount(np.concatenate([trained.owner, held.owner])).tolist()
    assert set() == set(trained.address.tolist()) & set(held.address.tolist())
    assert all(row.count(".") == 3 for _, row in held.rows()[:10])
