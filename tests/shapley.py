"""The shap library, which explanations are held against."""

from __future__ import annotations

import sys
from typing import Any

import pytest


def shap_library() -> Any:
    """It takes two seconds to import, so only tests that need it do; without its plots, as where there is no
    matplotlib: that takes a second more, and warns of matplotlib's own future."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "matplotlib", None)
        import shap
    return shap
