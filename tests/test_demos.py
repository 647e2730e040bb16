"""The demonstrations can be shown, and show what they say: their data and models, not the minutes they take."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import yaml

from loadtests import demo, demo_ab


@pytest.mark.parametrize("name", demo.DEMOS)
def test_every_demonstration_is_there(name: str) -> None:
    """Under the name it is called by."""
    module, _, function = demo.DEMOS[name][0].partition(":")
    assert callable(getattr(import_module(module), function))


def test_an_unknown_demonstration_is_refused() -> None:
    """As any command does."""
    with pytest.raises(SystemExit):
        demo.main(["magic"])


def test_the_better_variant_is_truly_better(tmp_path: Path) -> None:
    """On patients that neither model has seen; and both are served, one of them twice."""
    accuracy = demo_ab.train(tmp_path)
    assert accuracy["poor"] + 0.05 < accuracy["good"]
    declared = yaml.safe_load(demo_ab.declared(tmp_path).read_text())
    served = {
        one["EndpointConfigName"]: [variant["ModelName"] for variant in one["ProductionVariants"]]
        for one in declared["EndpointConfigs"]
    }
    assert {demo_ab.AB: ["poor", "good"], demo_ab.AA: ["good", "good"]} == served
    assert all((tmp_path / name / "model.ubj").stat().st_size for name in ("poor", "good"))
    rows = (tmp_path / "patients.csv").read_text().splitlines()
    assert {"0", "1"} == {row.partition(",")[0] for row in rows}
    assert {30} == {row.count(",") for row in rows}
