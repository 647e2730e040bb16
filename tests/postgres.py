"""A private PostgreSQL for a test session: Debian's package, a folder of its own, a Unix socket, gone at the end."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from tests import memory

#: The newest first.
_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: -float(path.parts[-3]))
#: For tests that run on every database: skipped only where there is no PostgreSQL.
NEEDED = pytest.mark.skipif(
    not _PROGRAMS, reason="no PostgreSQL in /usr/lib/postgresql: install the postgresql package"
)

#: Nothing here outlives the tests: no flush to disk. It listens on its socket only.
_SETTINGS = {"fsync": "off", "listen_addresses": "", "max_connections": "30", "shared_buffers": "32MB"}


class Postgres:
    """A running server: hands out empty databases, each with its own URL."""

    def __init__(self, folder: Path, user: list[str]) -> None:
        self.folder = folder
        self._user = user
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it; returns when it can be asked."""
        self._process = _start(self.folder, self._user)
        _wait(self, self._process)

    def stop(self) -> None:
        """End it: connections are cut."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)

    @contextmanager
    def away(self) -> Iterator[None]:
        """It does not run for the length of a ``with``."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection as its superuser, each statement a transaction."""
        return psycopg.connect(f"host={self.folder} user=postgres dbname={database}", autocommit=True)

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")  # a name of ours: nothing to quote
        return f"postgresql+psycopg://postgres@/{name}?host={quote(str(self.folder))}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start a server for the length of a ``with``: 0.5 seconds, and 2 more for the first of a process; its files are in
    memory."""
    folder = _folder()
    try:
        user = _own(folder)
        subprocess.run([*user, "cp", "-a", str(_initial()), str(folder / "data")], check=True, cwd="/")
        server = Postgres(folder, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _folder() -> Path:
    """A short name: the path of a socket has 107 characters at most."""
    return Path(tempfile.mkdtemp(prefix="pg", dir=memory.place()))


@cache
def _initial() -> Path:
    """What every server begins with, made once: it goes with this process."""
    folder = _folder()
    atexit.register(shutil.rmtree, folder)
    user = _own(folder)
    _run("initdb", user, "--pgdata", str(folder / "data"), "--username=postgres", "--auth=trust", "--no-sync")
    return folder / "data"


def _own(folder: Path) -> list[str]:
    """The words before a command that run it as a user PostgreSQL accepts, who shall own the folder: not root."""
    if os.getuid() != 0:
        return []
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _run(program: str, user: list[str], *arguments: str) -> None:
    command = [*user, str(_PROGRAMS[0].with_name(program)), *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True, cwd="/")


def _start(folder: Path, user: list[str]) -> subprocess.Popen[bytes]:
    settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    command = [*user, str(_PROGRAMS[0]), "-D", str(folder / "data"), "-k", str(folder), *settings]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd="/")


def _wait(server: Postgres, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < end:
        try:
            server.connect().close()
            return
        except psycopg.OperationalError:
            time.sleep(0.02)  # it has no sign for others when it is ready
    process.kill()
    process.wait()
    raise AssertionError(f"PostgreSQL did not start:\n{(server.folder / 'log').read_text()}")
