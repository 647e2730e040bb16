"""Asking the explain process from a plain blocking program, a monitoring run say: attributions of many calls' records.

The process must be there already: control starts it (``children.Children.explainer_there``), and its socket is
``explain.sock`` in the run folder.
"""

from __future__ import annotations

import socket as sockets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from serving import frames
from serving.errors import ModelError, ServiceUnavailable, ServingError, ValidationError

if TYPE_CHECKING:
    import numpy as np

#: What the process does beside computing, seconds.
_BESIDE = 10.0


class Asked(NamedTuple):
    """A call as it was made: its records are explained. Empty string = header absent."""

    body: bytes
    content_type: str
    accept: str
    target_model: str = ""


class Attributions(NamedTuple):
    """What the features of each record added to its prediction, beside the baseline's.

    ``headers``: a name for each feature. ``values``: float64 [records, features, outputs], in the order of the calls
    and of the records in them; an output is a class, a regression has one. ``expected``: float64 [outputs], what the
    model predicts of the baseline on average: with a record's values it adds up to its prediction. ``refused``: calls
    that could not be explained, as (index, why)."""

    headers: tuple[str, ...]
    values: np.ndarray
    expected: np.ndarray
    refused: tuple[tuple[int, str], ...] = ()


def attributions(
    socket: Path,
    endpoint: str,
    variant: str,
    bodies: Iterable[Asked],
    config: Mapping[str, Any] | None = None,
    seconds: float = 60.0,
) -> Attributions:
    """Explain every record of ``bodies`` by a variant's model. ``config``: a ClarifyExplainerConfig, whose
    EnableExplanations does not count here; None: the endpoint's own. ``seconds``: how long one body may take.

    A body that the model or the configuration refuses is counted in ``refused`` and left out. Raises ``ServingError``
    when nothing could be explained, or nobody answers."""
    import numpy as np

    explained: list[np.ndarray] = []
    refused: list[tuple[int, str]] = []
    headers: tuple[str, ...] = ()
    expected = np.zeros(0)
    with _Line(socket, seconds + _BESIDE) as line:
        for index, asked in enumerate(bodies):
            args = {**asked._asdict(), "endpoint": endpoint, "variant": variant, "config": config, "seconds": seconds}
            del args["body"]
            try:
                value, data = line.ask("attributions", args, asked.body)
            except (ModelError, ValidationError) as error:
                refused.append((index, error.message))
                continue
            values = np.frombuffer(data, np.float64).reshape(value["shape"])
            if explained and values.shape[1:] != explained[0].shape[1:]:
                refused.append((index, "Its records have other features, or the model's answer other classes."))
                continue
            explained.append(values)
            headers, expected = tuple(value["headers"]), np.array(value["expected"], np.float64)
    if not explained:
        raise ValidationError(refused[0][1] if refused else "There is nothing to explain.")
    return Attributions(headers, np.concatenate(explained), expected, tuple(refused))


class _Line:
    """A connection on which one question is asked after the other."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self._socket.settimeout(seconds)
        self._path = path

    def __enter__(self) -> _Line:
        try:
            self._socket.connect(str(self._path))
        except OSError:
            self._socket.close()
            raise ServiceUnavailable("The process that computes explanations cannot be reached.") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, what: str, args: Mapping[str, Any], payload: bytes) -> tuple[Any, bytes]:
        """The answer's value and bytes. Raises its ``ServingError``."""
        try:
            self._socket.sendall(frames.pack({"id": 1, "what": what, "args": args}, payload))
            whole, text = frames.lengths(self._read(frames.HEAD.size))
            fields, data = frames.unpack(self._read(whole), text)
        except (OSError, ValueError) as error:
            raise ServiceUnavailable(f"The process that computes explanations does not answer: {error}.") from None
        if "error" in fields:
            raised: ServingError = frames.error_of(fields)
            raise raised
        return fields["value"], data

    def _read(self, count: int) -> bytes:
        parts = []
        while count:
            part = self._socket.recv(min(count, 2**20))
            if not part:
                raise OSError("its connection ended")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)
