"""The laws of the house: who may import whom, who may read the environment, what a fresh process has loaded."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "serving"

#: Rooms from the roof to the cellar. A room may import those below it; rooms on one floor never each other.
FLOORS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            {"__main__"},
            {"cli", "pytest_plugin"},
            {
                "baselines",
                "comparing",
                "elastic",
                "later",
                "remote",
                "replaying",
                "simulation",
                "testing",
                "transforming",
            },
            {"guardrails", "terminal"},
            {"app", "client", "checking", "front_process", "jobs_process", "explain_process", "monitor_process"},
            {"children", "monitors"},
            {"link"},
            {"deploying"},
            {"declared"},
            {"sections"},
            {"api"},
            {"fleet", "jobs", "explain"},
            {"monitor", "scaling"},
            {"endpoint"},
            {"shadows", "variants"},
            {"workers"},
            {"runtimes", "watch"},
            {"codecs", "objects", "database"},
            {"storage", "wal", "frames"},
            {"config"},
            {"errors", "types"},
        ),
    )
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

#: Library -> the rooms that may know of it.
KEPT_IN = {
    "starlette": {"api"},
    "uvicorn": {"api", "front_process"},
    "typer": {"cli"},
    "rich": {"terminal"},
    "boto3": {"storage", "objects", "jobs", "testing"},
    "botocore": {"storage", "objects", "jobs"},
    **{name: {"runtimes"} for name in ("onnxruntime", "xgboost", "lightgbm", "torch", "joblib", "skops")},
    "PIL": {"runtimes"},
    "sklearn": {"runtimes", "monitor"},
    "scipy": {"monitor"},
    "shap": {"explain"},
    "opentelemetry": {"watch"},
}

ML = ["onnxruntime", "onnx", "xgboost", "lightgbm", "torch", "sklearn", "joblib", "skops", "skl2onnx", "transformers"]
FRAMEWORKS = [*ML, "scipy", "pandas", "polars", "matplotlib"]
COMFORTS = ["typer", "rich", "yaml", "boto3", "botocore", "locust", "pydantic", "pytest"]


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


MODULES = modules()


@cache
def parsed(module: str) -> ast.Module:
    """A module's tree, when it is first asked for: whoever only collects tests needs none."""
    return ast.parse(MODULES[module].read_text())


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of everything imported, anywhere in a module. A name taken out of a package of ours counts
    as the module it is, if it is one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert 0 == node.level, f"line {node.lineno}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in MODULES else str(node.module)), node.lineno


def room(module: str) -> str:
    """``serving.api.auth`` -> ``api``; the package itself -> empty."""
    return module.removeprefix("serving").lstrip(".").partition(".")[0]


def test_every_room_has_a_floor() -> None:
    """A new room is put on the plan, or it does not stand."""
    assert set() == {room(name) for name in MODULES} - set(FLOOR_OF) - {""}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """Never up, and never to another room on the same floor."""
    here = room(module)
    for name, line in imports(parsed(module)):
        there = room(name)
        if not name.startswith("serving.") or there == here:
            continue
        assert FLOOR_OF[here] < FLOOR_OF[there], f"{module}, line {line}, imports {name}"


def test_no_ring() -> None:
    """Inside a room too, imports in functions included."""
    graph = {
        name: {other for other, _ in imports(parsed(name)) if other in MODULES and other != name} for name in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", MODULES)
def test_libraries_stay_in_their_rooms(module: str) -> None:
    """The web framework at the doors, each ML framework behind its runtime."""
    for name, line in imports(parsed(module)):
        allowed = KEPT_IN.get(name.partition(".")[0])
        assert allowed is None or room(module) in allowed, f"{module}, line {line}, imports {name}"


def top_level(tree: ast.Module) -> Iterator[str]:
    """What is imported as soon as the module is."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) == "runtimes"])
def test_frameworks_are_imported_by_those_who_need_them(module: str) -> None:
    """At the first load of such a model: not when the runtime's table is read."""
    assert set() == {name.partition(".")[0] for name in top_level(parsed(module))} & set(FRAMEWORKS)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "serving.config"])
def test_only_config_reads_the_environment(module: str) -> None:
    """One place where a setting can come from."""
    for node in ast.walk(parsed(module)):
        attribute = node.attr if isinstance(node, ast.Attribute) else ""
        names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) and node.module == "os" else []
        used = {attribute, *names} & {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
        assert set() == used, f"{module}, line {getattr(node, 'lineno', 0)}"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("serving.app", [*FRAMEWORKS, *COMFORTS]),
        ("serving.front_process", [*FRAMEWORKS, *COMFORTS]),
        ("serving.jobs_process", [*FRAMEWORKS, *COMFORTS, "starlette", "uvicorn"]),
        ("serving.explain_process", [*FRAMEWORKS, *COMFORTS, "starlette", "uvicorn"]),
        ("serving.workers.child", [*FRAMEWORKS, *COMFORTS, "starlette", "uvicorn"]),
        ("serving.workers.forkserver", [*FRAMEWORKS, *COMFORTS, "starlette", "uvicorn"]),
        ("serving.runtimes.registry", [*FRAMEWORKS, *COMFORTS, "starlette", "uvicorn"]),
        ("serving.cli", [*FRAMEWORKS, "numpy", "starlette", "uvicorn", "asyncio", "rich", "yaml", "serving.app"]),
        ("serving.config", [*FRAMEWORKS, *COMFORTS, "numpy", "asyncio"]),
    ],
)
def test_a_fresh_process_loads_only_what_it_needs(module: str, unwanted: list[str]) -> None:
    """Start-up time and memory, in every process."""
    code = f"import sys, {module}; print(*sorted(set({unwanted!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "" == done.stdout.strip()
