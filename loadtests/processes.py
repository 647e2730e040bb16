"""Starting, watching and ending the processes that a measurement needs. Nothing started here outlives its ``with``."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_POLL_SECONDS = 0.01
_STOP_SECONDS = 15.0


class Answer(NamedTuple):
    """An HTTP answer, whole. ``headers`` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes


def call(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> Answer:
    """One HTTP call to loopback on a connection of its own. Raises ``OSError`` when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body or None, headers=dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"no HTTP answer from port {port}: {error!r}") from error
    finally:
        connection.close()


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Running:
    """A started server process: its port, its process tree, its log."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path, started: float) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.started = started
        self.ready_seconds = 0.0

    @property
    def pid(self) -> int:
        """Process id of the one we started; its children are found through /proc."""
        return self.process.pid

    def wait_ready(self, path: str = "", seconds: float = 60.0) -> float:
        """Poll until GET ``path`` answers 200 (no path: until the port listens); returns seconds since the start.

        Raises ``RuntimeError`` with the end of the log when the process dies or is not ready in time.
        """
        while time.monotonic() < self.started + seconds:
            if self._is_ready(path):
                self.ready_seconds = time.monotonic() - self.started
                return self.ready_seconds
            self.look_again()
        raise RuntimeError(f"server not ready after {seconds:.0f} s:\n{self.log_tail()}")

    def _is_ready(self, path: str) -> bool:
        if not path:
            return _listens(self.port)
        with contextlib.suppress(OSError):
            return call(self.port, "GET", path, timeout=2.0).status == 200
        return False

    def look_again(self, seconds: float = _POLL_SECONDS) -> None:
        """Let ``seconds`` pass before the next look at the server; should it end meanwhile, ``RuntimeError``."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(seconds)
            raise RuntimeError(f"server ended with {code}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of what the process printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])


def exit_on_sigterm() -> None:
    """Let SIGTERM unwind the program like Ctrl-C does, so that every ``with`` ends what it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@contextlib.contextmanager
def running(command: Sequence[str], port: int, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run ``command`` from the project's root for the length of the ``with``; then end it and everything it started.

    The log goes to a file, not a pipe: a full pipe would stop the very server that is measured.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder) / "server.log"
        started = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                list(command),
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, and we end the tree in order
            )
        try:
            yield Running(process, port, log, started)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to stop; then kill by pid whatever is left of its tree and of its session."""
    known = {(pid, _birth(pid)) for pid in process_tree(process.pid)}
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    known |= {(pid, _birth(pid)) for pid in _session_members(process.pid)}
    for pid, born in known:
        if born and _birth(pid) == born:  # the same process still, not a recycled number
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def python(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this project with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


@contextlib.contextmanager
def our_server(
    *arguments: str, environment: Mapping[str, str] | None = None, seconds: float = 60.0, data: Path | None = None
) -> Iterator[Running]:
    """``serving up`` with ``arguments`` on a free port and a data folder of its own, or in ``data``, which stays."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-data-") as own:
        command = python("serving", "up", *arguments, "--port", str(port), "--data-dir", str(data or own))
        with running(command, port, environment) as server:
            server.wait_ready("/readyz", seconds)
            try:
                yield server
            except Exception as error:
                error.add_note(f"the server's log ends with:\n{server.log_tail()}")
                raise


def _stat(pid: int) -> list[str]:
    """Fields 3 and on of /proc/PID/stat (state, parent, group, session ...), none when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _birth(pid: int) -> str:
    """Start time in clock ticks: with the pid it names one process for good. Empty when there is none, or a zombie."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _session_members(session: int) -> list[int]:
    return [pid for pid in _pids() if (fields := _stat(pid)) and int(fields[3]) == session]


def process_tree(root: int) -> list[int]:
    """``root`` and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        if fields := _stat(pid):
            children.setdefault(int(fields[1]), []).append(pid)
    tree = [root]
    for pid in tree:
        tree.extend(children.get(pid, []))
    return tree


def tree_bytes(root: int) -> int:
    """Resident bytes of a process tree: the sum of proportional set sizes, so pages shared by fork count once."""
    return sum(_proportional_bytes(pid) for pid in process_tree(root))


def tree_cpu_seconds(root: int) -> float:
    """Processor time of a process tree so far, user and system, children that have ended included."""
    ticks = sum(int(field) for pid in process_tree(root) for field in _stat(pid)[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # ended between the listing and the look
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def cores() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0))
