"""Finding a framework's shared library without importing the framework.

The tree libraries are C libraries in a Python coat, and the coat is the heavy part: importing xgboost costs 0.4 s and
50 MB, with scikit-learn and pandas installed 1.8 s and 200 MB; opening its library 5 ms and 5 MB. Their C APIs are
documented and stable, so the runtimes talk to those.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path


def open_library(package: str, name: str) -> ctypes.CDLL:
    """Open ``<package>/lib/<name>`` of an installed package.

    Raises ModuleNotFoundError when the package is not installed, OSError when its library cannot be opened.
    """
    spec = importlib.util.find_spec(package)  # of a top-level package: imports nothing
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return ctypes.CDLL(str(Path(spec.submodule_search_locations[0]) / "lib" / name))
