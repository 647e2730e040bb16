"""The example models: worth something, the same twice, answered as their cards say, and complete."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from models.recipes import BY_NAME, RECIPES
from tests.gallery import ROOT, artifacts, card, sample

# Every recipe this installation can build: torch is an optional install, the rest a part of the `test` extra.
HERE = [recipe.name for recipe in RECIPES if not recipe.lacking()]
XGBOOST = ["breast-cancer-xgboost", "diabetes-xgboost", "bench-xgboost"]
ONNX = [name for name in HERE if name.endswith("-onnx") or name == "bench-convnet"]
SCRIPTS = [name for name in HERE if name.endswith("-script")]
#: Seconds each: the nightly run builds them again.
DEAR = ("bench-convnet", "bench-xgboost", "zoo")
SLACK = {"accuracy": 0.02, "rmse": -8.0}


# `python -m models ...` where the package named first is not installed: no finder finds it.
COMMAND_WITHOUT = """
import sys

class Finder:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, *rest): return None if name == sys.argv[1] else self.finder.find_spec(name, *rest)
    def __getattr__(self, name): return getattr(self.finder, name)

sys.meta_path[:] = map(Finder, sys.meta_path)
from models.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


def run(*arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """``python -m models`` in a process of its own, with the package ``without`` hidden."""
    how = ["-c", COMMAND_WITHOUT, without] if without else ["-m", "models"]
    command = [sys.executable, *how, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def files(out: Path) -> dict[str, str]:
    """SHA-256 of every file of every model, from the manifest."""
    entries = json.loads((out / "manifest.json").read_text())["models"]
    return {file: facts["sha256"] for entry in entries.values() for file, facts in entry["files"].items()}


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """All at once: one by one, each build would import its framework again."""
    artifacts()


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Built again elsewhere, as an installation without torch does it: all but the dear ones, which are there."""
    out = tmp_path_factory.mktemp("gallery")
    first = artifacts(*DEAR)
    for folder in (*DEAR, *(f"cards/{name}" for name in DEAR)):
        shutil.copytree(first / folder, out / folder)
    entries = json.loads((first / "manifest.json").read_text())["models"]
    (out / "manifest.json").write_text(json.dumps({"models": {name: entries[name] for name in DEAR}}))
    return out, run("--out", str(out), without="torch")


@pytest.fixture(scope="module")
def second(without_torch: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    """The second gallery, completed with what torch adds where it is installed."""
    out, _ = without_torch
    run("--out", str(out), *HERE)
    return out


# --- worth something ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HERE)
def test_model_beats_its_named_baseline_with_slack(name: str) -> None:
    """A model that is no better than its baseline shows that the data or the export went wrong."""
    score = card(name)["score"]
    margin = (score["value"] - score["baseline_value"]) * (1 if score["higher_is_better"] else -1)
    assert abs(SLACK[score["metric"]]) < margin


def test_bench_trees_are_all_six_deep_and_mostly_full() -> None:
    """The bench table speaks of 100 trees of depth 6: their cost, so not one may be shallow."""
    import xgboost

    booster = xgboost.Booster(model_file=str(artifacts("bench-xgboost") / "bench-xgboost" / "model.ubj"))
    trees = [json.loads(tree) for tree in booster.get_dump(dump_format="json")]
    assert [6] * 100 == [_depth(tree) for tree in trees]
    assert 30 == booster.num_features()
    assert 48 < np.mean([json.dumps(tree).count('"leaf"') for tree in trees])


def _depth(node: dict[str, Any]) -> int:
    return 1 + max(map(_depth, node["children"])) if "children" in node else 0


# --- answered as the cards say -----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["request", "batch"])
@pytest.mark.parametrize("name", XGBOOST)
def test_xgboost_artifact_gives_the_expected_answer(name: str, which: str) -> None:
    """XGBoost itself, reading the artifact and the sample request, agrees with the card."""
    import xgboost

    root = artifacts(name) / card(name)["artifact"]
    content = _member(root, "xgboost-model") if root.suffix == ".gz" else (root / "model.ubj").read_bytes()
    request = sample(name, which)
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(content))
    _assert_close(request.expected["predictions"], booster.inplace_predict(_rows(name, which)), request.tolerance)


@pytest.mark.parametrize("which", ["request", "batch"])
@pytest.mark.parametrize("name", ONNX)
def test_onnx_artifact_gives_the_expected_answer(name: str, which: str) -> None:
    """ONNX Runtime, reading the artifact and the sample request, agrees with the card in every named output."""
    outputs = _onnx_outputs(name, _rows(name, which))
    request = sample(name, which)
    assert set(request.expected) == set(outputs)
    for output, expected in request.expected.items():
        _assert_close(expected, outputs[output], request.tolerance)


@pytest.mark.parametrize("which", ["request", "batch"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_artifact_gives_the_expected_answer(name: str, which: str) -> None:
    """The script inside the artifact, imported from there, agrees with the card."""
    root = artifacts(name) / name
    script = _imported(root / "code" / "inference.py")
    request = sample(name, which)
    is_wine = name == "wine-script"
    data = script.input_fn(request.body, request.content_type) if is_wine else _rows(name, which)
    answer = script.predict_fn(data, script.model_fn(str(root)))
    if is_wine:
        body, content_type = script.output_fn(answer, "application/json")
        assert ("application/json", request.expected) == (content_type, json.loads(body))
    else:
        _assert_close(request.expected["probabilities"], answer, request.tolerance)


def test_wine_script_answers_csv_and_refuses_what_it_does_not_know() -> None:
    """The script negotiates for itself: CSV on request, a clear error for another content type or width."""
    root = artifacts("wine-script") / "wine-script"
    script = _imported(root / "code" / "inference.py")
    assert ("class_1,2.5\n", "text/csv") == script.output_fn([{"label": "class_1", "distance": 2.5}], "text/csv")
    with pytest.raises(ValueError, match="image/png is not supported"):
        script.input_fn(b"", "image/png")
    with pytest.raises(ValueError, match="rows of 13 numbers"):
        script.predict_fn(np.ones((1, 12)), script.model_fn(str(root)))


def test_ab_variants_agree_on_most_held_out_patients() -> None:
    """Variant B answers the same question about the same columns in the same form."""
    rows = _rows("breast-cancer-xgboost", "batch")
    b = _onnx_outputs("breast-cancer-linear-onnx", rows)["score"]
    a = np.array(sample("breast-cancer-xgboost", "batch").expected["predictions"])
    assert a.shape == b.shape
    assert 0.9 <= np.mean((a > 0.5) == (b > 0.5))
    assert sample("breast-cancer-xgboost").body == sample("breast-cancer-linear-onnx").body


@pytest.mark.parametrize("name", ONNX)
def test_onnx_artifact_holds_no_trace_of_the_machine_that_made_it(name: str) -> None:
    """Exporters leave stack traces with paths; the artifact goes to strangers."""
    content = (artifacts(name) / name / "model.onnx").read_bytes()
    assert [] == [trace for trace in (b"stack_trace", b"site-packages", str(ROOT).encode()) if trace in content]


@pytest.mark.skipif("digits-convnet-onnx" not in HERE, reason="torch, which trains it, is an optional install")
def test_convnet_takes_any_number_of_images_in_both_forms_alike() -> None:
    """The batch axis is free, and ONNX and the script carry the same weights."""
    images = _rows("digits-convnet-onnx", "batch")
    assert (7, 10) == _onnx_outputs("digits-convnet-onnx", images[:7])["probabilities"].shape
    as_script = sample("digits-convnet-script", "batch").expected["probabilities"]
    _assert_close(as_script, _onnx_outputs("digits-convnet-onnx", images)["probabilities"], 1e-5)


# --- the zoo -----------------------------------------------------------------------------------------------------


def test_zoo_members_answer_each_in_their_own_way() -> None:
    """500 members, no two with the same bytes or the same answer: a mix-up shows as a wrong number."""
    folder = artifacts("zoo") / "cards" / "zoo"
    answers = {name: answer[0] for name, answer in json.loads((folder / "members.json").read_text()).items()}
    digests = [digest for file, digest in files(artifacts("zoo")).items() if file.startswith("zoo/")]
    assert sorted(path.name for path in (artifacts("zoo") / "zoo").iterdir()) == sorted(answers)
    assert (500, 500) == (len(answers), len(set(digests)))
    assert 500 == len(set(answers.values()))


@pytest.mark.parametrize("member", ["model-000.ubj", "model-250.ubj", "model-489.ubj", "model-490.tar.gz"])
def test_zoo_member_gives_its_expected_answer(member: str) -> None:
    """A member read from its file agrees with members.json, packed or not, and is small."""
    import xgboost

    path = artifacts("zoo") / "zoo" / member
    content = _member(path, "xgboost-model") if path.suffix == ".gz" else path.read_bytes()
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(content))
    expected = json.loads((artifacts("zoo") / "cards" / "zoo" / "members.json").read_text())[member]
    _assert_close(expected, booster.inplace_predict(_rows("zoo", "request")), 1e-3)
    assert len(content) < 100_000


# --- complete ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HERE)
def test_card_is_complete_and_names_an_artifact_that_exists(name: str) -> None:
    """Data with its licence, a measured score, limits, samples, and a path to serve."""
    described = card(name)
    folder = artifacts(name) / "cards" / name
    assert (artifacts(name) / described["artifact"]).exists()
    assert all((described["data"]["source"], described["data"]["licence"], described["limits"]))
    assert described["data"]["rows_held_out"] > 0
    assert {"request", "batch"} == set(described["samples"])
    text = (folder / "MODEL_CARD.md").read_text()
    assert all(word in text for word in (described["title"], described["data"]["licence"], described["limits"][0]))


@pytest.mark.parametrize("name", SCRIPTS)
def test_card_says_which_models_execute_code(name: str) -> None:
    """Who serves a script must have read so."""
    assert card(name)["executes_code"]
    assert "--allow-code" in (artifacts(name) / "cards" / name / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("file", ["endpoints.yaml", "endpoints-code.yaml"])
def test_declared_endpoints_name_models_that_are_built(file: str) -> None:
    """Every name resolves, and every ModelDataUrl is the artifact of a card."""
    body = yaml.safe_load((ROOT / "models" / file).read_text())
    models = {model["ModelName"]: model["PrimaryContainer"]["ModelDataUrl"] for model in body["Models"]}
    configs = {config["EndpointConfigName"]: config for config in body["EndpointConfigs"]}
    used = [variant["ModelName"] for config in configs.values() for variant in config["ProductionVariants"]]
    assert set(configs) == {endpoint["EndpointConfigName"] for endpoint in body["Endpoints"]}
    assert set(models) == set(used)
    assert set(models) <= set(BY_NAME)
    for name in set(models) & set(HERE):
        assert f"artifacts/{card(name)['artifact']}" == models[name].rstrip("/")


def test_plain_endpoints_need_neither_torch_nor_code() -> None:
    """endpoints.yaml must come up from a light installation, without consent to run code."""
    body = yaml.safe_load((ROOT / "models" / "endpoints.yaml").read_text())
    names = [model["ModelName"] for model in body["Models"]]
    assert not any("torch" in BY_NAME[name].needs or card(name)["executes_code"] for name in names)


def test_readme_lists_every_model() -> None:
    """A model that is not in the table does not exist for a reader."""
    text = (ROOT / "models" / "README.md").read_text()
    assert [] == [recipe.name for recipe in RECIPES if f"| `{recipe.name}` |" not in text]


# --- the command -------------------------------------------------------------------------------------------------


def test_building_again_gives_the_same_bytes(second: Path) -> None:
    """Fixed seeds and one thread: artifacts, cards and samples are a function of the recipe."""
    again = files(second)
    first = files(artifacts(*HERE))
    assert {file: first.get(file) for file in again} == again


@pytest.mark.slow
def test_building_the_dear_ones_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """The family of 500 and the models of the bench too."""
    assert 0 == run("--out", str(tmp_path), *DEAR).returncode
    first = files(artifacts(*DEAR))
    again = files(tmp_path)
    assert {file: first.get(file) for file in again} == again


def test_current_models_are_left_alone(second: Path) -> None:
    """A second run trains nothing and says so."""
    before = (second / "manifest.json").read_bytes()
    done = run("--out", str(second), "wine-script", "diabetes-xgboost")
    assert 2 == done.stdout.count("up to date")
    assert before == (second / "manifest.json").read_bytes()


@pytest.fixture(scope="module")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of one model."""
    out = tmp_path_factory.mktemp("wine")
    run("--out", str(out), "wine-script")
    return out


@pytest.mark.parametrize("damage", ["lost", "truncated", "stale", "no manifest"])
def test_model_that_is_not_whole_or_not_of_today_is_built_again(wine: Path, tmp_path: Path, damage: str) -> None:
    """The manifest's digest and file sizes decide, and the result is what it was."""
    shutil.copytree(wine, tmp_path, dirs_exist_ok=True)
    whole = files(tmp_path)
    centres, manifest = tmp_path / "wine-script" / "centres.json", tmp_path / "manifest.json"
    if damage == "lost":
        centres.unlink()
    elif damage == "truncated":
        centres.write_bytes(b"{")
    elif damage == "stale":
        manifest.write_text(manifest.read_text().replace(BY_NAME["wine-script"].digest(), "of another day"))
    else:
        manifest.write_text("{not json")
    done = run("--out", str(tmp_path), "wine-script")
    assert "built in" in done.stdout
    assert whole == files(tmp_path)
    assert b"{" != centres.read_bytes()


def test_force_builds_what_is_up_to_date(second: Path) -> None:
    """``--force`` trains anyway and leaves nothing of the old or of the building behind."""
    done = run("--out", str(second), "--force", "wine-script")
    assert "wine-script                built in" in done.stdout
    assert [] == [path for path in second.iterdir() if path.name.startswith(".building")]


def test_scratch_of_a_killed_builder_is_cleared_away(tmp_path: Path) -> None:
    """A builder that died leaves a hidden folder; the next one removes it."""
    left = tmp_path / ".building-dead" / "wine-script"
    left.mkdir(parents=True)
    run("--out", str(tmp_path), "wine-script")
    assert not left.parent.exists()


def test_without_torch_its_models_are_skipped_with_one_line_each(
    without_torch: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """torch is a heavy optional install: a plain run builds the rest, says what to install, and succeeds."""
    out, done = without_torch
    lines = [line for line in done.stdout.splitlines() if "skipped" in line]
    assert (0, "") == (done.returncode, done.stderr)
    assert ["digits-convnet-onnx", "digits-convnet-script"] == [line.split()[0] for line in lines]
    assert all("skipped: torch is not installed (pip install 'serving[torch]')" in line for line in lines)
    assert all((out / recipe.name).is_dir() for recipe in RECIPES if "torch" not in recipe.needs)


def test_what_is_built_needs_no_package_any_more() -> None:
    """Nothing is skipped that is already there."""
    done = run(*HERE, without="torch")
    assert (0, len(HERE)) == (done.returncode, done.stdout.count("up to date"))


def test_model_asked_for_by_name_that_cannot_be_built_fails_the_command(tmp_path: Path) -> None:
    """A script that asks for one model must hear that it did not get it."""
    assert 1 == run("--out", str(tmp_path), "digits-convnet-onnx", without="torch").returncode
    assert 1 == run("--out", str(tmp_path), "zoo", without="xgboost").returncode


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    """A typing error costs nothing."""
    done = run("digitz")
    assert 2 == done.returncode
    assert "no model 'digitz'; there are breast-cancer-xgboost" in done.stderr


def test_list_shows_states_and_builds_nothing(tmp_path: Path) -> None:
    """``--list`` only looks."""
    done = run("--out", str(tmp_path / "none"), "--list")
    assert len(RECIPES) == done.stdout.count(" missing ")
    assert not (tmp_path / "none").exists()


# --- reading samples ---------------------------------------------------------------------------------------------


def _rows(name: str, which: str) -> NDArray[np.float32]:
    """The sample request as the float32 array a server makes of it."""
    request = sample(name, which)
    if request.content_type == "text/csv":
        return np.loadtxt(io.BytesIO(request.body), delimiter=",", dtype=np.float32, ndmin=2)
    if request.content_type == "application/x-npy":
        array: NDArray[np.float32] = np.load(io.BytesIO(request.body))
        return array
    return np.array(json.loads(request.body), dtype=np.float32)


def _onnx_outputs(name: str, rows: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(artifacts(name) / name / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: rows}), strict=True))


def _member(archive: Path, name: str) -> bytes:
    """The only member of a packed model, which must be a plain file called ``name``."""
    with tarfile.open(archive) as packed:
        assert [name] == packed.getnames()
        content = packed.extractfile(name)
        assert content is not None
        return content.read()


def _imported(script: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"{script.parents[1].name}_inference", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _assert_close(expected: Any, actual: NDArray[Any], tolerance: float) -> None:
    np.testing.assert_allclose(actual, np.array(expected), rtol=0, atol=tolerance)
