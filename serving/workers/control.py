"""A worker's line to its supervisor: JSON lines both ways, never blocking. Its end is the worker's end."""

from __future__ import annotations

import json
import os
import socket
import threading

_READ = 64 * 1024
#: Reports that a stopped supervisor does not read wait up to so many bytes; what comes after them is dropped.
_MOST_UNTOLD = 4 * 2**20


class ControlLine:
    """Orders in, reports out."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._heard = b""
        self._untold = b""
        self._telling = threading.Lock()

    def fileno(self) -> int:
        """To wait on."""
        return self._socket.fileno()

    def tell(self, event: dict[str, object]) -> None:
        """Report something; from any thread."""
        with self._telling:
            if len(self._untold) < _MOST_UNTOLD:
                self._untold += json.dumps(event).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what was left over."""
        with self._telling:
            try:
                while self._untold:
                    self._untold = self._untold[self._socket.send(self._untold) :]
            except BlockingIOError:
                return
            except OSError:
                os._exit(0)  # no supervisor, no worker

    def orders(self) -> list[dict[str, object]]:
        """What the supervisor wants, in order. Ends the process when the supervisor has gone."""
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            os._exit(0)  # nobody would ever stop us
        *whole, self._heard = (self._heard + data).split(b"\n")
        return [json.loads(line) for line in whole]
