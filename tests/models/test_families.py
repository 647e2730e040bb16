"""The built-in algorithms, trained for real: good enough, better than their baselines, complete, and each of their
samples answered by a live server as the library that trained them would answer it.

Those that train in seconds are tested always, the others by ``python -m pytest -m slow``.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from loadtests.__main__ import main as run_scenario
from models import npm, train
from models.answers import differences, read
from models.families import BY_NAME, FAMILIES
from models.recipes import HERE, Recipe
from tests.gallery import ROOT, Question, artifacts, card, questions
from tests.server import Server, serve

QUICK = [family.name for family in FAMILIES if family.quick]
EVERY = [
    pytest.param(family.name, marks=[] if family.quick else pytest.mark.slow, id=family.name) for family in FAMILIES
]
#: Trained a second time to see that the same comes of it.
TWICE = ("linear-learner",)
#: What families import without it being a part of their digest: a change there trains nothing anew.
SHARED = {f"{name}.py" for name in ("baselines", "cards", "data", "npm", "packaging", "recipes", "samples")}
#: What comes along with some packages.
BRINGING, BROUGHT = {"sklearn", "skimage", "mlxtend"}, {"scipy", "joblib", "threadpoolctl"}
TARGET = "X-Amzn-SageMaker-Target-Model"


class Hall(NamedTuple):
    """A server that has all families as members of one endpoint."""

    server: Server
    client: httpx.Client

    def ask(self, family: str, question: Question) -> httpx.Response:
        """The answer to a sample."""
        headers = {"Content-Type": question.content_type, TARGET: f"{family}.tar.gz"}
        if question.accept:
            headers["Accept"] = question.accept
        return self.client.post("/invocations", content=question.body, headers=headers)


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    """The multi-model endpoint of the gallery; what is trained later is there too."""
    members = artifacts(*QUICK) / "gallery"
    with serve(tmp_path_factory.mktemp("hall"), str(members)) as server, server.client() as client:
        yield Hall(server, client)


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A family trained a second time, into another folder."""
    out = tmp_path_factory.mktemp("again")
    return out, run("--out", str(out), *TWICE)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m models train ...``."""
    return subprocess.run(
        [sys.executable, "-m", "models", "train", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def _needs(family: str) -> None:
    """Where npm could not fetch a family's data, there is nothing to train."""
    if lacking := npm.lacking(BY_NAME[family].npm):
        if all(npm.fetch(package) for package in lacking):
            return
        pytest.skip(f"{' and '.join(lacking)} cannot be fetched here")  # a checkout without npm or its registry


# --- trained for real --------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", EVERY)
def test_family_is_as_good_as_it_has_to_be_and_beats_its_baseline(family: str) -> None:
    """On what was held out: training itself refuses what misses its aim, so the aim must be there."""
    _needs(family)
    score = card(family)["score"]
    better = 1 if score["higher_is_better"] else -1
    assert better * score["aim"] <= better * score["value"]
    assert better * score["baseline_value"] < better * score["value"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", EVERY)
def test_every_sample_is_answered_as_the_library_would(hall: Hall, family: str) -> None:
    """Each request type of the card, sent to a live server: status, type and the whole answer."""
    _needs(family)
    asked = questions(family)
    assert {"request", "batch"} <= {question.name for question in asked}
    for question in asked:
        answer = hall.ask(family, question)
        assert 200 == answer.status_code, f"{question.name}: {answer.text[:500]}"
        kind = answer.headers["content-type"]
        if question.accept:
            assert question.accept.partition(";")[0] == kind.partition(";")[0], question.name
        assert [] == differences(question.expected, read(answer.content, kind), question.tolerance)[:3], question.name


def test_load_on_the_gallery_is_answered_as_its_cards_say(hall: Hall, tmp_path: Path) -> None:
    """The Locust scenario: families by Zipf's law, whole answers judged."""
    common = ["--host", hall.server.url, "--users", "2", "--seconds", "1", "--reports", str(tmp_path)]
    assert 0 == run_scenario(["gallery", *common, "--gallery-endpoint", "default"])
    (report,) = tmp_path.glob("*.json")
    assert {entry["name"] for entry in json.loads(report.read_text())} <= {family.name for family in FAMILIES}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", EVERY)
def test_card_of_a_family_is_complete(family: str) -> None:
    """Data with its licence, what was held out, limits, an artifact that is data only, the member of the endpoint."""
    _needs(family)
    described = card(family)
    out = artifacts(family)
    assert all((described["data"]["source"], described["data"]["licence"], described["limits"], described["inputs"]))
    assert 0 < described["data"]["rows_held_out"]
    assert (out / described["artifact"]).exists()
    assert (out / "gallery" / f"{family}.tar.gz").is_file()
    assert not described["executes_code"]
    assert [] == [path.name for path in (out / family).rglob("*") if path.suffix in (".py", ".pkl", ".joblib", ".pth")]


@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
def test_family_names_every_package_that_it_imports(family: Recipe) -> None:
    """Who lacks one is told so before anything is trained; and every file of ours that it imports is in its digest,
    or shared by all."""
    others = {_recipe(one) for one in FAMILIES} - {_recipe(family)}
    files = {HERE / file for file in family.files()} - others
    imported = {name for file in files if file.parent.name == family.family for name in _imports(file)}
    packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"models", "numpy"}
    assert set() == packages - set(family.needs) - (BROUGHT if BRINGING & set(family.needs) else set())
    ours = {f"{name.removeprefix('models.').replace('.', '/')}.py" for name in imported if name.startswith("models.")}
    assert set() == ours - SHARED - set(family.files())


def _recipe(family: Recipe) -> Path:
    """The file with its function."""
    return (HERE / family.build.partition(":")[0].replace(".", "/")).with_suffix(".py")


def _imports(file: Path) -> Iterator[str]:
    """Dotted names of what a file imports, wherever in it; a name taken out of a package of ours is a module there."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = str(node.module)
            inside = (ROOT / package.replace(".", "/")).is_dir()
            yield from (f"{package}.{alias.name}" if inside else package for alias in node.names)


# --- the command -------------------------------------------------------------------------------------------------


def test_training_again_gives_the_same_bytes(again: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Fixed seeds and one thread: artifacts, packed members, cards and samples are a function of the recipe."""
    out, done = again
    assert 0 == done.returncode, done.stdout + done.stderr
    first, second = (_files(where, TWICE) for where in (artifacts(*TWICE), out))
    assert first == second
    assert {"linear-learner/model.onnx", "gallery/linear-learner.tar.gz"} <= set(first)


def test_training_tells_a_line_for_each_family(again: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """How long it took, what it is worth and what was asked of it; in a log no bars and no colours."""
    _, done = again
    lines = done.stdout.splitlines()
    assert sorted(TWICE) == sorted(line.split()[0] for line in lines[:-1])
    assert all(" trained in " in line and " asked" in line and "\x1b" not in line for line in lines[:-1])
    assert lines[-1].startswith("1 of 1 in ")


def test_trained_families_are_left_alone(
    again: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run trains nothing and says so; ``--list`` says it too."""
    out = str(again[0])
    assert 0 == train.main(["--out", out, *TWICE])
    assert 1 == capsys.readouterr().out.count("up to date")
    assert 0 == train.main(["--out", out, "--list"])
    listed = capsys.readouterr().out
    assert (1, len(FAMILIES) - 1) == (listed.count(" current "), listed.count(" missing "))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nobody"], "no family 'nobody'; there are linear-learner"),
        (["--jobs", "0"], "'0' is no count from 1 to 64"),
        (["--effort", "2"], "'2' is no number above 0 and up to 1"),
        (["--effort", "much"], "'much' is no number above 0 and up to 1"),
    ],
)
def test_wrong_command_line_is_refused(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is trained, in words."""
    with pytest.raises(SystemExit) as refused:
        train.main(arguments)
    assert 2 == refused.value.code
    assert why in capsys.readouterr().err


def _files(out: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """File -> size and digest, as the manifest of a folder has them."""
    models = json.loads((out / "manifest.json").read_text())["models"]
    return {file: facts for name in names for file, facts in models[name]["files"].items()}
