"""The console in a real browser: makes what its tests need and runs them.

``python -m tests.browser [PYTEST ARGUMENTS]``: Playwright lives in an environment of its own beside the project's
libraries (``tests/environments.py``), as nothing but these tests needs it; Chromium is the system's, and is installed
where there is none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests import environments

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_APT = ("apt-get", "-qq", "-o", "Dpkg::Use-Pty=0")


def interpreter() -> Path:
    """A Python that has Playwright, and whatever this one has."""
    python = environments.python("browser")
    (site,) = (python.parent.parent / "lib").glob("python*/site-packages")
    (site / "project.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return python


def installed() -> str:
    """The browser's path; empty where there is none."""
    named = os.environ.get("CHROMIUM", "")
    return named or next(filter(None, map(shutil.which, _NAMES)), "")


def browser(python: Path) -> str:
    """The browser's path: the system's, one from Debian's archive where we may install that, or Playwright's own."""
    if not installed() and shutil.which("apt-get") and os.geteuid() == 0:
        calm = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*_APT, "update"], check=False, env=calm)
        subprocess.run([*_APT, "install", "--yes", "--no-install-recommends", "chromium"], check=False, env=calm)
    if not installed():
        subprocess.run([str(python), "-m", "playwright", "install", "chromium"], check=True)
    return installed()


def main(arguments: Sequence[str]) -> int:
    """Run the tests; returns pytest's exit status."""
    python = interpreter()
    environment = {**os.environ, "CHROMIUM": browser(python)}
    command = [str(python), "-m", "pytest", "-m", "browser", "tests/browser", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
