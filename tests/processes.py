"""What the system knows of a server's processes."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.server import Server


def children(pid: int) -> list[int]:
    """Processes started by a process, and by those."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    found = [int(one) for one in listed]
    return found + [grandchild for child in found for grandchild in children(child)]


def is_alive(pid: int) -> bool:
    """Does the process run still (not: wait to be reaped)?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def processes(server: Server, marker: str) -> list[int]:
    """The server's processes whose command line has ``marker``."""
    found = []
    for pid in children(server.process.pid):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if marker.encode() in line:
            found.append(pid)
    return found


def kill_all(server: Server) -> None:
    """Every process of a server at once."""
    for pid in (server.process.pid, *children(server.process.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait(30)
