"""Metric maths: what CloudWatch's expressions come to, and which are none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ValidationError
from serving.scaling import maths
from serving.scaling.values import Metric, Query, Stat

A = [(60.0, 1.0), (120.0, 2.0), (180.0, 3.0)]
B = [(60.0, 10.0), (120.0, 20.0)]
SERIES = {"a": A, "b": B}


def query(id: str, expression: str = "") -> Query:
    """A metric of this id, or an expression."""
    return Query(id, None if expression else Stat(Metric("n", id), "Sum"), expression)


def computed(expression: str) -> maths.Series:
    """What an expression ``e`` over ``a`` and ``b`` comes to."""
    queries = [query("a")._replace(returned=False), query("b")._replace(returned=False), Query("e", None, expression)]
    return maths.evaluate(queries, lambda stat: SERIES[stat.metric.name])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a + b", [(60.0, 11.0), (120.0, 22.0)]),
        ("a - b", [(60.0, -9.0), (120.0, -18.0)]),
        ("a * 2 + 1", [(60.0, 3.0), (120.0, 5.0), (180.0, 7.0)]),
        ("1 + 2 * a", [(60.0, 3.0), (120.0, 5.0), (180.0, 7.0)]),
        ("(1 + 2) * a", [(60.0, 3.0), (120.0, 6.0), (180.0, 9.0)]),
        ("-a ^ 2", [(60.0, -1.0), (120.0, -4.0), (180.0, -9.0)]),
        ("b / (a - 1)", [(120.0, 20.0)]),
        ("SUM([a, b])", [(60.0, 11.0), (120.0, 22.0)]),
        ("AVG([a, 3])", [(60.0, 2.0), (120.0, 2.5), (180.0, 3.0)]),
        ("MAX([a, 2])", [(60.0, 2.0), (120.0, 2.0), (180.0, 3.0)]),
        ("a - MIN(a)", [(60.0, 0.0), (120.0, 1.0), (180.0, 2.0)]),
        ("a / SUM(a)", [(60.0, 1 / 6), (120.0, 2 / 6), (180.0, 3 / 6)]),
        ("ABS(0 - a)", [(60.0, 1.0), (120.0, 2.0), (180.0, 3.0)]),
        ("CEIL(a / 2)", [(60.0, 1.0), (120.0, 1.0), (180.0, 2.0)]),
        ("FLOOR(a / 2)", [(60.0, 0.0), (120.0, 1.0), (180.0, 1.0)]),
        ("IF(a > 1, b, 7)", [(60.0, 7.0), (120.0, 20.0)]),
        ("IF(a >= 2 AND a < 3, a)", [(120.0, 2.0)]),
        ("IF(a == 1 || a != 2, 1, 0)", [(60.0, 1.0), (120.0, 0.0), (180.0, 1.0)]),
        ("FILL(b, 5)", [(60.0, 10.0), (120.0, 20.0), (180.0, 5.0)]),
        ("FILL(b, a) + a", [(60.0, 11.0), (120.0, 22.0), (180.0, 6.0)]),
        ("1e2 + .5", [(60.0, 100.5), (120.0, 100.5), (180.0, 100.5)]),
        ("a / 0", []),
        ("(0 - a) ^ 0.5", []),
        ("10 ^ 999 * a", []),
    ],
)
def test_an_expression_comes_to(expression: str, expected: list[tuple[float, float]]) -> None:
    """Point by point, where all have one."""
    found = computed(expression)
    assert [at for at, _ in expected] == [at for at, _ in found]
    assert [value for _, value in expected] == pytest.approx([value for _, value in found])


def test_an_expression_may_name_others_in_any_order() -> None:
    """Also a chain as long as a call may have."""
    queries = [query(f"e{at}", f"e{at + 1} + 1") for at in range(498)] + [query("e498", "a"), query("a")]
    found = maths.all_of(queries, lambda one: SERIES[one.id])
    assert [(60.0, 499.0), (120.0, 500.0), (180.0, 501.0)] == found["e0"]


def test_only_what_is_returned_is_told() -> None:
    """The rest is there to be named."""
    queries = [query("a")._replace(returned=False), query("e", "a * 2")]
    assert {"e": [(60.0, 2.0), (120.0, 4.0), (180.0, 6.0)]} == maths.all_of(queries, lambda one: SERIES[one.id])


def test_what_is_missing_is_filled_at_the_times_that_the_caller_names() -> None:
    """No metric has a point there."""
    queries = [query("b")._replace(returned=False), query("e", "FILL(b, 0)")]
    found = maths.evaluate(queries, lambda _: B, times=[240.0])
    assert [(60.0, 10.0), (120.0, 20.0), (240.0, 0.0)] == found


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "ends too early"),
        ("a +", "ends too early"),
        ("a b", "nothing can follow"),
        ("(a", r"'\)' is missing"),
        ("a ; b", "is no part of one"),
        ("SUM(a", r"'\)' is missing"),
        ("SUM(a, b)", "takes 1 arguments"),
        ("IF(a)", "takes 2 or 3"),
        ("NOSUCH(a)", "there is no 'NOSUCH'"),
        ("zz + 1", "not among the queries"),
        ("e + 1", "name each other"),
        ("[a, b]", "is a list"),
        ("[a] + 1", "out of place"),
        ("IF(1, [a], 2)", "out of place"),
        ("(" * 60 + "a" + ")" * 60, "nested"),
        ("+".join("a" * 500), "at most"),
        ("1" * 3000, "characters at most"),
    ],
)
def test_what_is_no_expression_is_refused_in_words(expression: str, why: str) -> None:
    """Before anything is computed of it."""
    with pytest.raises(ValidationError, match=why):
        computed(expression)


def test_exactly_one_is_returned_by_an_alarm() -> None:
    """Neither none nor two."""
    for queries in ([], [query("a"), query("b")]):
        with pytest.raises(ValidationError, match="Exactly one"):
            maths.evaluate(queries, lambda _: A)


@given(st.text(st.sampled_from("ab12.+-*/^()[],<>=!&|ISUMFAVGXCEL ORND"), max_size=60))
def test_any_text_is_computed_or_refused(text: str) -> None:
    """And every value that comes of it is a finite number."""
    try:
        found = computed(text)
    except ValidationError:
        return
    assert all(math.isfinite(value) for _, value in found)


def test_a_metric_is_fetched_once() -> None:
    """However often it is named."""
    asked = []

    def fetch(stat: Stat) -> maths.Series:
        asked.append(stat)
        return A

    stat = Stat(Metric("n", "m"), "Sum")
    queries = [Query("m1", stat, returned=False), Query("e", expression="m1 + m1 * m1")]
    assert [(60.0, 2.0), (120.0, 6.0), (180.0, 12.0)] == maths.evaluate(queries, fetch)
    assert [stat] == asked


def test_a_list_within_a_list_is_refused() -> None:
    """Each of forty expressions doubles the one before: nobody ever reads such a list to its end."""
    doubling = [Query(f"e{at + 1}", None, f"[e{at}, e{at}]", returned=False) for at in range(40)]
    queries = [query("e0")._replace(returned=False), *doubling, Query("z", None, "SUM(ABS(e40))")]
    with pytest.raises(ValidationError, match="within another"):
        maths.evaluate(queries, lambda stat: A)


@pytest.mark.parametrize("expression", ["+".join(["FILL(a, 1)"] * 100), "+".join(["f"] * 190)])
def test_what_would_take_long_to_compute_is_refused(expression: str) -> None:
    """Hundreds of operators over hours of seconds: others wait meanwhile."""
    queries = [query("a")._replace(returned=False), Query("f", None, "FILL(a, 1)", False), Query("z", None, expression)]
    with pytest.raises(ValidationError, match="points at most"):
        maths.evaluate(queries, lambda stat: A, [float(at) for at in range(10_000)])
