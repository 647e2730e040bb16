"""The gallery's page tells of every family what was found with the recipe of today; its endpoints name all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from docs import gallery
from loadtests.demo_gallery import Books
from loadtests.families import trained
from loadtests.latency import library_call, rows_of
from models import showing
from models.answers import differences, read
from models.families import FAMILIES
from models.recipes import HERE, Recipe
from tests.changed_families import changed, digests
from tests.gallery import ROOT, artifacts

NAMES = [family.name for family in FAMILIES]
AGAIN = "run python -m docs.gallery"


def test_page_is_what_its_records_give() -> None:
    """Nobody writes into it by hand."""
    assert gallery.page(gallery.read()) == gallery.PAGE.read_text(), AGAIN


def test_page_has_every_family() -> None:
    """A row, a section and a record each."""
    text = gallery.PAGE.read_text()
    assert NAMES == list(gallery.read()["families"])
    assert [] == [name for name in NAMES if f"\n| [{name}](#" not in text or f"](gallery/{name}.png)" not in text]


@pytest.mark.parametrize("family", FAMILIES, ids=NAMES)
def test_record_is_of_the_recipe_of_today(family: Recipe) -> None:
    """Whoever changes how a family is trained trains it, and looks at what the page then says."""
    record = gallery.read()["families"].get(family.name, {})
    assert family.digest() == record.get("recipe"), f"{AGAIN} {family.name}"


@pytest.mark.parametrize("name", NAMES)
def test_picture_is_there_and_small(name: str) -> None:
    """Pictures are a part of the repository for good."""
    content = (gallery.PICTURES / f"{name}.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) <= showing.LARGEST


def test_no_picture_is_left_of_a_family_that_is_gone() -> None:
    """Each belongs to a family."""
    assert sorted(NAMES) == sorted(path.stem for path in gallery.PICTURES.iterdir())


def test_links_of_the_table_lead_to_headings() -> None:
    """As GitHub makes anchors of headings."""
    records = gallery.read()["families"]
    assert len(records) == len({record["title"] for record in records.values()})
    assert "k-nn-a-digit-by-its-5-nearest" == gallery._anchor("K-NN: a digit by its 5 nearest")


def test_bodies_are_shown_short() -> None:
    """Long lists and numbers are cut, what is no text is named; never longer than asked."""
    document = json.dumps({"instances": [{"features": [1.23456789, 2, 3, 4, 5]}]}).encode()
    assert '{"instances": [{"features": [1.235, 2, 3, …]}]}' == gallery.shown(document, "application/json", 80)
    assert '{"instances": [{"fe…' == gallery.shown(document, "application/json", 20)
    assert "1,2 …" == gallery.shown(b"1,2\n3,4\n", "text/csv", 80)
    assert "image/png, 1,000 bytes" == gallery.shown(bytes(1000), "image/png", 80)
    assert '{"target": "a b"} …' == gallery.shown(b'{"target":"a b"}\n{"target":"c"}\n', "application/jsonlines", 80)


def test_gallery_endpoints_are_every_family_and_all_of_them_at_once() -> None:
    """Each by its name, without a process while nobody calls it, and one endpoint over the folder of all."""
    body = yaml.safe_load((ROOT / "models" / "endpoints-gallery.yaml").read_text())
    urls = {model["ModelName"]: model["PrimaryContainer"]["ModelDataUrl"] for model in body["Models"]}
    assert {**{name: f"artifacts/gallery/{name}.tar.gz" for name in NAMES}, "gallery": "artifacts/gallery/"} == urls
    assert [*NAMES, "gallery"] == [endpoint["EndpointName"] for endpoint in body["Endpoints"]]
    configs = {config["EndpointConfigName"]: config["ProductionVariants"] for config in body["EndpointConfigs"]}
    assert all(configs[name][0]["ModelName"] == name for name in [*NAMES, "gallery"])
    assert all("ServerlessConfig" in configs[name][0] for name in NAMES)


def test_every_family_lies_in_a_folder_with_its_picture() -> None:
    """``show.py`` beside the recipe, and a line in the models' README."""
    text = (ROOT / "models" / "README.md").read_text()
    assert [] == [family.name for family in FAMILIES if not (HERE / family.family / "show.py").is_file()]
    assert [] == [name for name in NAMES if f"| `{name}` |" not in text]


# --- which are trained by whom -----------------------------------------------------------------------------------


def test_changed_families_are_those_of_another_recipe_or_record() -> None:
    """By what is recorded, and by what was recorded before, where that is known."""
    recorded = {"a": "1", "b": "2", "c": "3"}
    assert [] == changed(recorded, recorded, {})
    assert ["b", "d"] == changed({"a": "1", "b": "other", "d": "4"}, recorded, {})
    assert ["c"] == changed(recorded, recorded, {"a": "1", "b": "2"})
    assert ["a"] == changed(recorded, recorded, {"a": "0", "b": "2", "c": "3"})


@pytest.mark.parametrize("content", ["", "[]", '{"families": [1]}', '{"families": {"a": 1}}'])
def test_records_that_are_none_know_of_no_family(tmp_path: Path, content: str) -> None:
    """The first commit has no earlier record."""
    (tmp_path / "old.json").write_text(content)
    assert {} == digests(tmp_path / "old.json")
    assert {} == digests(tmp_path / "none.json")


# --- judging and measuring ---------------------------------------------------------------------------------------


def test_answers_are_compared_to_the_last_number() -> None:
    """Within the tolerance they are the same; else it is said where they differ."""
    expected = {"predictions": [{"score": 0.5, "label": "a"}, {"score": float("nan"), "label": "b"}]}
    near = {"predictions": [{"score": 0.50001, "label": "a"}, {"score": float("nan"), "label": "b"}]}
    assert [] == differences(expected, near, 1e-4)
    assert ["answer.predictions[0].score is 0.50001 where 0.5 was expected"] == differences(expected, near, 1e-6)
    assert ["answer has 1 items where 2 were expected"] == differences([1, 2], [1], 1)
    assert ["answer has ['b'] where ['a'] were expected"] == differences({"a": 1}, {"b": 1}, 1)
    assert ["answer is True where 1 was expected"] == differences(1, True, 1)


def test_answers_are_read_by_their_type() -> None:
    """As cards write them down."""
    assert [{"a": 1}, [2]] == read(b'{"a":1}\n[2]\n', "application/jsonlines")
    assert [[1.0, 3.0], [2.0, 4.0]] == read(b"1.0,3.0\n2.0,4.0\n", "text/csv; charset=utf-8")
    assert {"a": 1} == read(b'{"a":1}', "application/json; verbose=true")
    assert b"\x89PNG" == read(b"\x89PNG", "image/png")


def test_rows_are_found_in_every_spelling() -> None:
    """Dense twice, sparse, CSV; what is no row of numbers is none."""
    sparse = {"data": {"features": {"keys": [2, 0], "shape": [3], "values": [5, 1]}}}
    dense = {"data": {"features": {"values": [4, 5, 6]}}}
    body = json.dumps({"instances": [{"features": [1, 2, 3]}, dense, sparse]}).encode()
    rows = rows_of(body, "application/json")
    assert rows is not None
    assert [[1, 2, 3], [4, 5, 6], [1, 0, 5]] == rows.tolist()
    csv = rows_of(b"1,2\n3,4\n", "text/csv")
    assert csv is not None
    assert [[1, 2], [3, 4]] == csv.tolist()
    assert [None] * 5 == [
        rows_of(b"user,10.0.0.1", "text/csv"),
        rows_of(b"x", "image/png"),
        rows_of(b'{"instances": ["a word"]}', "application/json"),
        rows_of(b'{"instances": [{"in0": [1]}]}', "application/json"),
        rows_of(b'{"instances": [{"data": "b r u n e t t e"}]}', "application/json"),
    ]


def test_budget_has_room_for_the_largest_model() -> None:
    """A model larger than the budget would never be answered."""
    assert 50 == Books([30, 40, 30], []).budget(0.5)
    assert 100 == Books([80, 10, 10], []).budget(0.5)


def test_trained_families_judge_their_own_answers() -> None:
    """The load's verdict: the card's answer is right, another is a fault in words. Its library takes the rows too."""
    (one,) = (asked for asked in trained(artifacts("linear-learner")) if asked.family == "linear-learner")
    assert "" == one.fault(json.dumps(one.expected).encode(), "application/json")
    assert one.fault(b'{"predictions": []}', "application/json").startswith("linear-learner: answer.predictions has 0")
    assert "cannot be read" in one.fault(b"no json", "application/json")
    call = library_call(artifacts("linear-learner") / "linear-learner", one.body, one.content_type)
    assert call is not None
    call()
