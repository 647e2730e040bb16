"""Folders for tests in memory, where no flush waits for a disk: for modules that flush thousands of times, and of which
no fact concerns the disk.

Such a module says ``tmp_path_factory = memory.tmp_path_factory``, and pytest's own ``tmp_path`` follows.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Where Linux has memory as a folder; a container may have none to speak of there.
_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 1 << 30


def place() -> Path | None:
    """Where such a folder is to be made; None, which is the usual place, where memory is no folder or a small one."""
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ENOUGH_BYTES:
        return _MEMORY
    return None


@pytest.fixture(scope="module")
def tmp_path_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.TempPathFactory]:
    """pytest's own, with its folders in memory; they go with the module."""
    with tempfile.TemporaryDirectory(dir=place(), prefix="serving-tests-", ignore_cleanup_errors=True) as folder:
        made = copy.copy(tmp_path_factory)
        made._basetemp = Path(folder)  # what nobody outside pytest can say in any other way
        yield made
