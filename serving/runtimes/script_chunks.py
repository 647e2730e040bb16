"""A script's answer that is an iterator: its pieces as bytes, its failures as ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from serving.errors import ModelError, OutOfMemory, PredictionFailed, ServingError
from serving.runtimes.base import Chunks
from serving.runtimes.failures import is_out_of_memory, said
from serving.runtimes.script_context import ScriptContext

_LONGEST_FAILURE = 2048

log = logging.getLogger(__name__)


class ScriptChunks(Chunks):
    """What a script's generator yields. What it sets in its context before its first piece counts; a status from 400 on
    makes that piece a failure's text."""

    def __init__(self, pieces: Iterator[Any], context: ScriptContext, content_type: str, usual: str) -> None:
        """``content_type``: what the script returned beside its pieces; ``usual``: what it is if nobody says."""
        self.headers = context.response_headers
        self._pieces = pieces
        self._context = context
        self._type = content_type
        self._usual = usual
        self._begun = False

    @property
    def content_type(self) -> str:  # type: ignore[override]  # read only: it follows the context
        """The media type of the whole."""
        return self._type or self._context.response_content_type or self._usual

    def __next__(self) -> bytes:
        """The next piece that is not empty. Raises StopIteration after the last, ModelError for what the script did."""
        data = self._next()
        if not self._begun:
            self._begun = True
            self._refuse_status(data)
        if not data:
            raise StopIteration
        return data

    def _next(self) -> bytes:
        try:
            for piece in self._pieces:
                data = as_bytes(piece)
                if data is None:
                    raise PredictionFailed(f"a streamed answer must be bytes or text, not {type(piece).__name__}")
                if data:
                    return data
        except ServingError:
            raise
        except (Exception, SystemExit) as error:
            raise translated(error) from error
        return b""

    def _refuse_status(self, data: bytes) -> None:
        status = self._context.response_status
        if status >= 400:
            raise ModelError(data[:_LONGEST_FAILURE].decode("utf-8", "replace"), status)

    def close(self) -> None:
        """Let the generator clean up (``GeneratorExit``)."""
        close = getattr(self._pieces, "close", None)
        try:
            if callable(close):
                close()
        except BaseException:  # of a script's own making: the caller has gone, nobody is left to be told
            log.warning("a script failed when its stream was closed", exc_info=True)


def as_bytes(answer: Any) -> bytes | None:
    """Bytes and text as bytes; None for all else."""
    if isinstance(answer, bytes | bytearray | memoryview):
        return bytes(answer)
    return answer.encode() if isinstance(answer, str) else None


def translated(error: BaseException) -> ModelError:
    """What a script raised, as an error of our tree: its ``status_code`` from 400 to 599 if it has one, else 500."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and 400 <= status <= 599:
        return ModelError(said(error), status)
    if is_out_of_memory(error):
        return OutOfMemory("there is not enough memory for this prediction")
    return PredictionFailed(f"the script raised {type(error).__name__}: {said(error)}")
