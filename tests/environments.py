"""Virtual environments of clients that cannot live beside each other, each built once and kept.

``python -m tests.environments [NAME...]`` builds those that are not there yet (all, when none is named) and says what
is in them. A client test asks for one by ``python(name)``, which builds it when it must.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

#: Name -> what is installed. Exact, so that a new release never turns a good day's tests red.
ENVIRONMENTS: Mapping[str, tuple[str, ...]] = {
    "boto3-old": ("boto3==1.34.162",),
    "awscli-v1": ("awscli==1.46.2",),
    "sagemaker-v2": ("sagemaker==2.257.7",),
    "sagemaker-core": ("sagemaker-core==2.27.0",),
    "browser": ("playwright==1.65.2", "axe-playwright-python==0.1.8"),
}

#: Where they are kept; ``CLIENT_ENVIRONMENTS`` names another place, such as one that outlives a CI run.
ROOT = Path(os.environ.get("CLIENT_ENVIRONMENTS") or Path(__file__).resolve().parent.parent / ".environments")


def folder(name: str) -> Path:
    """Where an environment lives: other requirements or another Python is another folder."""
    wanted = "\n".join([sys.version, *ENVIRONMENTS[name]])
    return ROOT / f"{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"


def python(name: str) -> Path:
    """The interpreter of an environment, which is built now if it is not there."""
    home = folder(name)
    with _alone(name):
        if not (home / "complete").exists():
            _build(home, ENVIRONMENTS[name])
    return home / "bin" / "python"


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """One builder at a time: others wait for it and then find it built."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(home: Path, requirements: Sequence[str]) -> None:
    """A half-built one has no ``complete`` and is built anew."""
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run([*pip, "--prefer-binary", *requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip could not install {' '.join(requirements)}:\n{done.stderr[-4000:]}")
    (home / "complete").touch()


def main(names: Sequence[str]) -> int:
    """Build the named ones (all, when none is named) and list what was asked for, with seconds and megabytes."""
    for name in names or ENVIRONMENTS:
        began = time.monotonic()
        where = python(name)
        size = sum(path.lstat().st_size for path in folder(name).rglob("*") if path.is_file()) / 1e6
        print(f"{name}  {time.monotonic() - began:.0f} s  {size:.0f} MB  {where}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
