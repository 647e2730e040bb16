"""Explanations without a server: coalitions, the kernel, texts, records, outputs, and what a configuration may say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import PredictionFailed, ValidationError
from serving.explain import coalitions, explainer, expressions, kernel, outputs, players, records, trees
from serving.explain import settings as explaining
from serving.explain.settings import Explainer
from serving.runtimes import trees_to_onnx
from tests.shapley import shap_library

Model = Callable[[np.ndarray], np.ndarray]


def dice(seed: int = 0) -> np.random.Generator:
    """A generator for a test."""
    return np.random.default_rng(seed)


def explained(model: Model, count: int, wanted: int | None = None, link: kernel.Link = kernel.identity) -> np.ndarray:
    """What the players of ``model`` (masks [n, players] -> [n, outputs]) add: [players, outputs]."""
    known = coalitions.coalitions(count, coalitions.how_many(count, wanted), dice(1))
    full, empty = np.ones((1, count), bool), np.zeros((1, count), bool)
    return kernel.attributions(known, model(known.masks), model(full)[0], model(empty)[0], link, count)


def crooked(count: int, classes: int = 2) -> Model:
    """Probabilities with interactions between all players: [n, classes]."""
    made = dice(count)
    linear, pairs = made.normal(size=(count, classes)), made.normal(size=(count, count, classes)) * 0.3

    def model(masks: np.ndarray) -> np.ndarray:
        kept = masks.astype(np.float64)
        margin = kept @ linear + np.einsum("ni,ijc,nj->nc", kept, pairs, kept)
        answer: np.ndarray = 1.0 / (1.0 + np.exp(-margin))
        return answer

    return model


def config(**more: Any) -> dict[str, Any]:
    """A ClarifyExplainerConfig; members of ShapConfig and InferenceConfig by their own names."""
    shap = {name: more.pop(name) for name in ("NumberOfSamples", "Seed", "UseLogit", "TextConfig") if name in more}
    enable = {"EnableExplanations": more.pop("EnableExplanations")} if "EnableExplanations" in more else {}
    baseline = more.pop("Baseline", {"ShapBaseline": "0,0"})
    return {**enable, "ShapConfig": {"ShapBaselineConfig": baseline, **shap}, "InferenceConfig": more}


def made(**more: Any) -> Explainer:
    """The explainer of such a configuration."""
    return explaining.explainer(config(**more))


# --- coalitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("players_", "wanted", "expected"),
    [(2, None, 2), (10, None, 1022), (11, None, 2046), (12, None, 2072), (20, None, 2088), (20, 100, 100), (4, 99, 14)],
)
def test_how_many_coalitions(players_: int, wanted: int | None, expected: int) -> None:
    """min(NumberOfSamples or 2F + 2048, 2^F - 2): AWS's own examples are 10 and 20 features."""
    assert expected == coalitions.how_many(players_, wanted)


@given(st.integers(2, 40), st.integers(1, 400), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_coalitions_are_different_and_neither_empty_nor_full(count: int, wanted: int, seed: int) -> None:
    """As many as were asked for at most, whose weights add up to one."""
    number = coalitions.how_many(count, wanted)
    found = coalitions.coalitions(count, number, dice(seed))
    assert found.masks.shape == (len(found.weights), count)
    assert len(found.masks) <= max(number, 2 * count)
    assert len(found.masks) == len(np.unique(found.masks, axis=0))
    assert found.masks.any(1).all()
    assert not found.masks.all(1).any()
    assert math.isclose(1.0, found.weights.sum())
    assert (found.weights > 0.0).all()


def test_few_players_have_all_coalitions() -> None:
    """Up to eleven, without a NumberOfSamples; each weighs as the Shapley kernel says."""
    found = coalitions.coalitions(4, 14, dice())
    assert 14 == len(found.masks)
    kernel_of = {1: 3 / (4 * 1 * 3), 2: 3 / (6 * 2 * 2), 3: 3 / (4 * 3 * 1)}
    total = 4 * kernel_of[1] + 6 * kernel_of[2] + 4 * kernel_of[3]
    for mask, weight in zip(found.masks, found.weights, strict=True):
        assert math.isclose(kernel_of[int(mask.sum())] / total, weight)


def test_a_seed_draws_the_same_again() -> None:
    """And another seed others."""
    one, again, other = (coalitions.coalitions(30, 500, dice(seed)) for seed in (7, 7, 8))
    assert np.array_equal(one.masks, again.masks)
    assert np.array_equal(one.weights, again.weights)
    assert not np.array_equal(one.masks, other.masks)


# --- the kernel -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 7, 11])
@pytest.mark.parametrize("link", ["identity", "logit"])
def test_exact_values_are_those_of_the_shap_library(count: int, link: str) -> None:
    """To rounding, for every class, as probabilities and as log-odds."""
    shap = shap_library()
    model = crooked(count)
    theirs = shap.KernelExplainer(lambda kept: model(kept != 0.0), np.zeros((1, count)), link=link, silent=True)
    expected = theirs.shap_values(np.ones((1, count)), silent=True, l1_reg=False)[0]
    found = explained(model, count, link=kernel.logit if link == "logit" else kernel.identity)
    assert np.abs(expected - found).max() < 1e-9


@given(st.integers(2, 40), st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_a_linear_model_is_explained_exactly(count: int, seed: int) -> None:
    """From samples too, as soon as there are more of them than players: each weight is its player's value."""
    weights = dice(seed).normal(size=(count, 1))
    found = explained(lambda masks: masks @ weights + 5.0, count, wanted=4 * count)
    assert np.abs(weights - found).max() < 1e-8


def test_samples_come_near_the_exact_values() -> None:
    """Of 4,094 coalitions of 12 players the usual 2,072 find values that are within a hundredth of all."""
    model = crooked(12)
    exact, sampled = explained(model, 12, wanted=4094), explained(model, 12)
    assert np.abs(exact - sampled).max() < 0.01
    total = model(np.ones((1, 12), bool))[0] - model(np.zeros((1, 12), bool))[0]
    assert np.abs(total - sampled.sum(0)).max() < 1e-12


def test_fewer_samples_than_players_still_add_up() -> None:
    """They cannot tell players apart; the sum is the prediction all the same."""
    model = crooked(12)
    found = explained(model, 12, wanted=3)
    total = model(np.ones((1, 12), bool))[0] - model(np.zeros((1, 12), bool))[0]
    assert np.abs(total - found.sum(0)).max() < 1e-9


def test_a_single_feature_is_all_there_is() -> None:
    """It needs no coalition."""
    found = kernel.attributions(None, np.zeros((0, 1)), np.array([3.0]), np.array([1.0]), kernel.identity, 1)
    assert [[2.0]] == found.tolist()


def test_log_odds_need_probabilities() -> None:
    """A certain one is as certain as a float can say; 1.5 is none."""
    assert np.isfinite(kernel.logit(np.array([0.0, 0.5, 1.0]))).all()
    with pytest.raises(PredictionFailed, match=r"UseLogit needs probabilities from 0 to 1; the model answered 1\.5"):
        kernel.logit(np.array([0.5, 1.5]))


# --- texts ----------------------------------------------------------------------------------------------------------

TEXT = "It's good. Really good!\n\nBut 3 stars, \u4f60\u597d\u3002"


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [
        (
            "token",
            ["It's", "good", ".", "Really", "good", "!", "But", "3", "stars", ",", "\u4f60", "\u597d", "\u3002"],
        ),
        ("sentence", ["It's good.", "Really good!", "But 3 stars, \u4f60\u597d\u3002"]),
        ("paragraph", ["It's good. Really good!", "But 3 stars, \u4f60\u597d\u3002"]),
    ],
)
def test_units_of_a_text(granularity: explaining.Granularity, expected: list[str]) -> None:
    """Words and marks, sentences, paragraphs."""
    assert expected == [unit.text for unit in players.units(TEXT, granularity)]


@given(st.text(max_size=200), st.sampled_from(["token", "sentence", "paragraph"]))
@settings(deadline=None)
def test_units_are_parts_of_their_text(text: str, granularity: explaining.Granularity) -> None:
    """Each stands where it says, one after the other, nothing but blanks between them; with all kept the text is as it
    was."""
    found = players.units(text, granularity)
    end = 0
    for unit in found:
        assert unit.text == text[unit.start : unit.start + len(unit.text)]
        assert unit.start >= end
        assert not text[end : unit.start].strip()
        end = unit.start + len(unit.text)
    assert not text[end:].strip()
    assert text == players.masked(players.Feature(text, found), [True] * len(found), "X")


def test_the_baseline_stands_for_units_that_are_not_kept() -> None:
    """What is between them stays."""
    feature = players.Feature("a  bad film", players.units("a  bad film", "token"))
    assert "a  <M> film" == players.masked(feature, [True, False, True], "<M>")
    assert "  bad " == players.masked(feature, [False, True, False], None)


def test_synthetic_records_keep_cells_as_they_came() -> None:
    """Numbers keep their digits, texts their quotes; each coalition meets each row of the baseline."""
    read = records.read(b'1.50,"a, b"\r\n', "text/csv", "", "It")
    features = players.features(read.rows[0], (), "")
    masks = np.array([[True, False], [False, True]])
    baseline: list[list[records.Cell]] = [["0", "x"], ["9", 'y"']]
    form = records.form_of(read, "", explaining.FEATURES)
    expected = ["1.50,x\n", '1.50,"y"""\n', '0,"a, b"\n', '9,"a, b"\n']
    assert expected == list(players.lines(features, baseline, masks, form))


def test_synthetic_records_of_json_lines_follow_the_template() -> None:
    """The template is put around the list of features; a baseline of CSV has its numbers as numbers."""
    read = records.read(b'{"x": [1.5, "ab"]}\n', "application/jsonlines", "x", "It")
    features = players.features(read.rows[0], (), "")
    baseline = records.alike([["0", "z"]], read.kind)
    form = records.form_of(read, '{"x":$features,"k":1}', explaining.FEATURES)
    found = list(players.lines(features, baseline, np.array([[False, True], [False, False]]), form))
    assert ['{"x":[0,"ab"],"k":1}\n', '{"x":[0,"z"],"k":1}\n'] == found


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("7", 7), (" -7 ", -7), ("1.50", 1.5), ("", None), ("1_0", "1_0"), ("nan", "nan"), ("9" * 30, 1e30), (True, True)],
)
def test_what_cells_of_csv_mean(cell: str, expected: Any) -> None:
    """As values of JSON, which has no number that is not finite, nor a whole one of any length."""
    assert expected == records.value(cell)
    assert records.json_cell(records.value(cell))


def test_batches_hold_so_many_lines_and_bytes() -> None:
    """One line at least, however long it is."""
    lines = ["aaa\n", "b\n", "cc\n", "d" * 100 + "\n", "e\n"]
    assert [lines[:2], lines[2:3], lines[3:4], lines[4:]] == list(records.batches(iter(lines), 2, 8))
    assert [["é\n"], ["é\n"]] == list(records.batches(iter(["é\n", "é\n"]), 9, 5))


# --- requests and answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "features", "message"),
    [
        (b"", "text/csv", "", "holds no record"),
        (b"1,2\n3\n", "text/csv", "", "record 2 has 1 features, record 1 has 2"),
        (b'1,"2\n', "text/csv", "", "malformed CSV"),
        (b"\xff\xfe", "text/csv", "", "not UTF-8"),
        (b"{", "application/jsonlines", "x", "line 1 is not JSON"),
        (b'{"y": [1]}', "application/jsonlines", "x", "no list of features at FeaturesAttribute 'x'"),
        (b'{"x": [1]}', "application/jsonlines", "", "there is no FeaturesAttribute"),
        (b'{"x": 1}', "application/jsonlines", "length(x)", "cannot be applied"),
        (b"1", "application/x-npy", "", "must be text/csv or application/jsonlines"),
    ],
)
def test_records_that_cannot_be_read(body: bytes, kind: str, features: str, message: str) -> None:
    """Each says what is wrong with it."""
    with pytest.raises(ValidationError, match=message):
        records.read(body, kind, features, "It")


@given(st.binary(max_size=60), st.sampled_from(["text/csv", "application/jsonlines", "text/csv; header=present"]))
@settings(deadline=None)
def test_wild_bodies_are_read_or_refused(body: bytes, kind: str) -> None:
    """Nothing else comes of them."""
    try:
        read = records.read(body, kind, "x", "It")
    except ValidationError:
        return
    assert read.rows
    assert 1 == len({len(row) for row in read.rows})


@pytest.mark.parametrize(
    ("body", "kind", "more", "expected"),
    [
        (b"0.5\n0.25\n", "text/csv", {}, [[0.5], [0.25]]),
        (b"1,0.6\n", "text/csv; charset=utf-8", {"ProbabilityIndex": 1}, [[0.6]]),
        (b"\"['cat','dog']\",\"[0.1,0.9]\"\n", "text/csv", {"ProbabilityIndex": 1}, [[0.1, 0.9]]),
        (b"0.1,0.2,0.7\n", "text/csv", {}, [[0.1, 0.2, 0.7]]),
        (b'{"p": 0.6, "l": 1}\n', "application/jsonlines", {"ProbabilityAttribute": "p"}, [[0.6]]),
        (b'{"score": 0.6}\n{"score": 1}\n', "application/jsonlines", {}, [[0.6], [1.0]]),
        (b"[0.4, 0.6]\n", "application/jsonlines", {}, [[0.4, 0.6]]),
        (b'{"predictions": [{"score": 3}]}', "application/json", {}, [[3.0]]),
    ],
)
def test_scores_are_found_in_answers(body: bytes, kind: str, more: dict[str, Any], expected: list[list[float]]) -> None:
    """Where InferenceConfig says, or where there is nothing else."""
    found = outputs.scores(outputs.read(body, kind), records.kind_of(kind), made(**more))
    assert expected == found.tolist()


@pytest.mark.parametrize(
    ("body", "kind", "more", "message"),
    [
        (b"cat\n", "text/csv", {}, 'no score at "cat"'),
        (b"1,0.6\n", "text/csv", {"ProbabilityIndex": 2}, "has 2 columns, and ProbabilityIndex is 2"),
        (b"1,2\n3\n", "text/csv", {}, "several lengths"),
        (b'{"p": 0.6, "l": 1}\n', "application/jsonlines", {}, "ProbabilityAttribute"),
        (b'{"p": 0.6}\n', "application/jsonlines", {"ProbabilityAttribute": "q"}, "no score at null"),
        (b"abc", "application/jsonlines", {}, "is not valid application/jsonlines"),
        (b"\x00", "application/x-npy", {}, "only text/csv and application/jsonlines are explained"),
        (b"nan\n", "text/csv", {}, "no score"),
    ],
)
def test_answers_without_a_score(body: bytes, kind: str, more: dict[str, Any], message: str) -> None:
    """A model and an explainer that do not fit each other are told apart from a defect."""
    with pytest.raises((ValidationError, PredictionFailed), match=message):
        outputs.scores(outputs.read(body, kind), records.kind_of(kind), made(**more))


@pytest.mark.parametrize(
    ("record", "kind", "more", "expected"),
    [
        ([["cat", "dog"], [0.1, 0.9]], "text/csv", {"LabelIndex": 0, "LabelHeaders": ["x"]}, ["cat", "dog"]),
        ({"labels": ["cat"]}, "application/jsonlines", {"LabelAttribute": "labels"}, ["cat"]),
        ({"labels": ["cat"]}, "application/jsonlines", {"LabelAttribute": "names", "LabelHeaders": ["x"]}, ["x"]),
        ([0.5], "text/csv", {}, []),
    ],
)
def test_names_of_classes(record: Any, kind: str, more: dict[str, Any], expected: list[str]) -> None:
    """The answer's own before the explainer's."""
    assert expected == outputs.label_headers(record, kind, made(**more))


@pytest.mark.parametrize(
    ("expression", "record", "expected"),
    [
        ("`true`", [0.1], True),
        ("`false`", {"p": 1}, False),
        ("[1]>`0.5`", [1, 0.6], True),
        ("probability>`0.5`", {"predicted_label": 1, "probability": 0.6}, True),
        ("!contains(probabilities[:-1], max(probabilities))", {"probabilities": [0.4, 0.1, 0.4]}, False),
    ],
)
def test_which_records_are_explained(expression: str, record: Any, expected: bool) -> None:
    """AWS's own examples."""
    assert expected is expressions.holds(expression, record)


@pytest.mark.parametrize("expression", ["[0]", "probability", "length(@)", "abs(@)", "nothing(@)"])
def test_odd_results_are_refused(expression: str) -> None:
    """A number, null, a type the function does not take, a function there is not."""
    with pytest.raises(ValidationError, match="EnableExplanations"):
        expressions.holds(expression, [0.5])


@pytest.mark.parametrize(
    "expression",
    [
        "[@,@,@,@][]|[@,@,@,@][]|[@,@,@,@][]|[@,@][]|length(@)>`1`",
        "[@,@,@]|{a:@,b:@,c:@}|[@,@,@]|to_string(@)=='a'",
        "join(to_string(@),map(&to_string(@),@))=='a'",
    ],
)
def test_an_expression_cannot_make_much_of_a_record(expression: str) -> None:
    """64 characters of a caller's would fill the memory of a server."""
    with pytest.raises(ValidationError, match="makes too much of a record"):
        expressions.holds(expression, ["0.5"])


# --- configurations -------------------------------------------------------------------------------------------------

_TEXT = {"Language": "en", "Granularity": "token"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"EnableExplanations": "[0] > `0.5`", "Seed": -1, "UseLogit": True, "NumberOfSamples": 1},
        {"FeatureHeaders": ["a", "b"]},
        {"TextConfig": _TEXT, "FeatureTypes": ["text", "numerical"]},
        {"Baseline": {"ShapBaselineUri": "s3://b/k", "MimeType": "application/jsonlines"}},
        {"Baseline": {"ShapBaseline": "[1,2]\n[3,4]", "MimeType": "application/jsonlines"}},
        {"FeaturesAttribute": "x", "ContentTemplate": '{"x":$features}', "ProbabilityAttribute": "p[0]"},
    ],
)
def test_configurations_that_are_right(more: dict[str, Any]) -> None:
    """Members that fit each other."""
    explaining.check(config(**more))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"EnableExplanations": "[0"}, r"EnableExplanations '\[0' is not a valid JMESPath expression"),
        ({"FeaturesAttribute": "a b"}, "FeaturesAttribute"),
        ({"ProbabilityAttribute": "]"}, "ProbabilityAttribute"),
        ({"LabelAttribute": "'"}, "LabelAttribute"),
        ({"ContentTemplate": '{"x": 1}'}, r"must hold \$features"),
        ({"ContentTemplate": "{$features}"}, "is not JSON"),
        ({"Baseline": {}}, "either a ShapBaseline or a ShapBaselineUri"),
        ({"Baseline": {"ShapBaseline": "1", "ShapBaselineUri": "s3://b/k"}}, "either a ShapBaseline"),
        ({"Baseline": {"ShapBaselineUri": "https://b/k"}}, "s3://"),
        ({"Baseline": {"ShapBaseline": "1", "MimeType": "application/json"}}, "MimeType"),
        ({"Baseline": {"ShapBaseline": "1,2\n3"}}, "record 2 has 1 features"),
        ({"Baseline": {"ShapBaseline": "\n"}}, "holds no record"),
        ({"FeatureHeaders": ["a"]}, "has 2 features, and there are 1 FeatureHeaders"),
        ({"FeatureTypes": ["numerical", "categorical"]}, "at least one of them must be text"),
        ({"FeatureTypes": ["text", "numerical"]}, "need a TextConfig"),
        ({"TextConfig": _TEXT, "FeatureTypes": ["text"]}, "there are 1 FeatureTypes"),
        ({"TextConfig": _TEXT, "FeatureTypes": ["text"], "FeatureHeaders": ["a", "b"]}, "2 FeatureHeaders and 1"),
    ],
)
def test_configurations_that_are_refused(more: dict[str, Any], message: str) -> None:
    """Before anything is deployed with them."""
    with pytest.raises(ValidationError, match=message):
        explaining.check(config(**more))


def test_text_is_seen_in_the_baseline() -> None:
    """Where a TextConfig is given and FeatureTypes are not; without one, nothing is text."""
    rows = [["1", "<MASK>"], ["2.5", ""]]
    assert ("numerical", "text") == explaining.types_of(made(TextConfig=_TEXT), rows)
    assert () == explaining.types_of(made(), rows)


# --- trees ----------------------------------------------------------------------------------------------------------


def forest(objective: str) -> tuple[trees.Leaves, Any, np.ndarray]:
    """A booster of 6 columns with gaps, its leaves as ours, and rows to explain (float32, NaN = missing)."""
    import xgboost

    made = dice(3)
    rows = made.normal(size=(300, 6)).astype(np.float32)
    rows[made.random(rows.shape) < 0.15] = np.nan
    target = np.nan_to_num(rows[:, 0] * rows[:, 1]) + np.nansum(rows, 1)
    if objective == "binary:logistic":
        target = (target > 0.0).astype(np.float32)
    booster = xgboost.train(
        {"max_depth": 5, "objective": objective, "base_score": 0.4, "nthread": 1}, xgboost.DMatrix(rows, target), 20
    )
    read = trees_to_onnx.read_forest(bytes(booster.save_raw("json")))
    assert read is not None
    nodes, transform, columns, outputs = read
    assert (6, 1) == (columns, outputs)
    return trees.leaves(nodes, columns, transform), booster, rows


def test_leaves_give_the_values_of_the_kernel() -> None:
    """Of the margin, against several rows, with missing values in both: all coalitions asked of the booster itself find
    the same, and so does the shap library's Tree SHAP."""
    shap = shap_library()
    leaves, booster, rows = forest("reg:squarederror")
    row, baseline = rows[200], rows[:7]
    known = coalitions.coalitions(6, 62, dice())
    synthetic = np.where(known.masks[:, None, :], row, baseline).reshape(-1, 6)
    answers = booster.inplace_predict(synthetic).reshape(62, 7, 1).mean(1)
    own, base = booster.inplace_predict(row[None]), booster.inplace_predict(baseline).mean(keepdims=True)
    asked = kernel.attributions(known, answers, own, base, kernel.identity, 6)[:, 0]
    found = trees.attributions(leaves, row, baseline)
    assert np.abs(asked - found).max() < 1e-5
    theirs = shap.TreeExplainer(booster, data=baseline, feature_perturbation="interventional")
    assert np.abs(theirs.shap_values(row[None])[0] - found).max() < 1e-6
    assert abs(trees.predicted(leaves, row[None]) - own[0]) < 1e-5


def test_log_odds_of_one_row_are_the_leaves_sum() -> None:
    """A probability's log-odds are the margin: of a single baseline row the same values as the kernel's, to what a
    float32 probability can say."""
    leaves, booster, rows = forest("binary:logistic")
    row, baseline = rows[200], rows[:1]
    known = coalitions.coalitions(6, 62, dice())
    answers = booster.inplace_predict(np.where(known.masks, row, baseline))[:, None].astype(np.float64)
    own, base = (booster.inplace_predict(one).astype(np.float64) for one in (row[None], baseline))
    asked = kernel.attributions(known, answers, own, base, kernel.logit, 6)[:, 0]
    assert np.abs(asked - trees.attributions(leaves, row, baseline)).max() < 1e-4


@pytest.mark.parametrize(
    ("objective", "logit", "baseline", "expected"),
    [
        ("reg:squarederror", False, 9, True),
        ("reg:squarederror", True, 1, False),
        ("binary:logistic", True, 1, True),
        ("binary:logistic", True, 2, False),
        ("binary:logistic", False, 1, False),
    ],
)
def test_when_leaves_add_up_to_what_is_explained(objective: str, logit: bool, baseline: int, expected: bool) -> None:
    """Predictions that are sums; log-odds against one row. Probabilities are asked of the model."""
    leaves, _, _ = forest(objective)
    assert expected is trees.adds_up(leaves, logit, baseline)


def test_cells_as_a_booster_reads_them() -> None:
    """Empty ones are missing; a text is no number, and then its model is asked."""
    found = trees.numbers([["1.5", "", "2"], [1, None, True]])
    assert found is not None
    assert np.array_equal(np.array([[1.5, np.nan, 2.0], [1.0, np.nan, 1.0]], np.float32), found, equal_nan=True)
    assert trees.numbers([["a", "1"]]) is None


def test_large_baselines_are_kept_as_far_as_there_is_room() -> None:
    """The oldest go; the newest is kept however large it is."""
    kept = explainer.Baselines(most=3, most_bytes=100)
    for name, size in (("a", 10), ("b", 10), ("c", 10), ("d", 10)):
        kept.keep((name,), [[name]], size)
    assert [None, [["b"]], [["d"]]] == [kept.get((name,)) for name in "abd"]
    kept.keep(("e",), [["e"]], 85)
    assert [None, None, [["d"]], [["e"]]] == [kept.get((name,)) for name in "bcde"]
    kept.keep(("f",), [["f"]], 1000)
    assert [None, [["f"]]] == [kept.get((name,)) for name in "ef"]
