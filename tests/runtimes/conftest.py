"""Every trained model once per test process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.runtimes.trained import MAKERS, Case


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """The case of a maker's name, trained at its first use. Nobody writes into its folder."""
    made: dict[str, Case] = {}

    def case(name: str) -> Case:
        if name not in made:
            made[name] = MAKERS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return case
