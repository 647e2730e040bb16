"""The warm process workers are forked from: frameworks imported, no thread started, no model loaded.

Importing a framework costs 0.3 to 2 s; forking this process costs about 10 ms and shares its pages. There is one
forkserver for each set of frameworks a variant needs, so a worker holds none that it does not.

Speaks JSON lines with the supervisor over an inherited socket: in ``{"spawn": plan}``; out ``{"warm": true}``,
``{"spawned": worker_id, "pid": n}``, ``{"died": pid, "status": wait status}``. Its own end is the end of the socket.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

from serving.runtimes import registry as runtimes
from serving.workers import child, memory
from serving.workers.plan import WorkerPlan

_PR_SET_PDEATHSIG = 1


class Forkserver:
    """The loop: orders and children's ends."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._buffer = b""
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)
        self._children: dict[int, int] = {}

    def serve(self) -> None:
        """Until the supervisor goes."""
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._control.fileno():
                    self._reap(fd)
                    continue
                data = self._control.recv(1 << 16)
                if not data:
                    return
                *lines, self._buffer = (self._buffer + data).split(b"\n")
                for line in lines:
                    self._spawn(WorkerPlan.from_json(json.loads(line)["spawn"]))

    def say(self, message: dict[str, object]) -> None:
        """One line to the supervisor."""
        self._control.sendall(json.dumps(message).encode() + b"\n")

    def _spawn(self, plan: WorkerPlan) -> None:
        parent, pid = os.getpid(), os.fork()
        if pid == 0:
            self._become(plan, parent)
        fd = os.pidfd_open(pid)
        self._children[fd] = pid
        self._poll.register(fd, select.POLLIN)
        self.say({"spawned": plan.worker_id, "pid": pid})

    def _reap(self, fd: int) -> None:
        pid = self._children.pop(fd)
        self._poll.unregister(fd)
        os.close(fd)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # what its models started; its number is not free before the next line
        _, status = os.waitpid(pid, 0)
        self.say({"died": pid, "status": status})

    def _become(self, plan: WorkerPlan, parent: int) -> NoReturn:
        """In the child: let go of the parent's descriptors and be a worker."""
        status = 1
        try:
            self._control.close()
            for fd in self._children:
                os.close(fd)
            os.setpgid(0, 0)
            _end_with(parent)
            gc.enable()
            child.run(plan)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)


def _end_with(parent: int) -> None:
    """Have the system end this process when its parent ends, even while a model holds the interpreter lock."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before we asked
        os._exit(0)


def main() -> None:
    """``python -m serving.workers.forkserver FD FRAMEWORK,FRAMEWORK``."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group: control alone decides who ends when
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    frameworks = [name for name in sys.argv[2].split(",") if name]
    runtimes.preload(frameworks)
    memory.quiet_collector()  # and children share these pages: no collection may write to them
    gc.disable()
    server = Forkserver(control)
    server.say({"warm": True})
    server.serve()


if __name__ == "__main__":
    main()
