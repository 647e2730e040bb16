"""A model asked about synthetic records: many a call, several calls at a time, each through ``Endpoint.invoke``."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from serving.endpoint import Endpoint, answer
from serving.errors import InvocationTimedOut, ModelError, OutOfMemory, PredictionFailed, ValidationError, WorkerDied
from serving.explain import outputs, records
from serving.explain.records import Form
from serving.explain.settings import Explainer
from serving.types import Invocation, Reply

#: Records a call where MaxRecordCount does not say: enough that calls cost little, few enough that nobody waits long
#: behind one.
_RECORDS = 512
#: Calls at a time for one explanation: so many for each worker, and at most.
_CALLS_A_WORKER, _MOST_CALLS = 2, 8
#: Scores of one explanation that are kept: 160 MB of them.
_MOST_SCORES = 20_000_000


class Pattern(NamedTuple):
    """How synthetic records are sent: an invocation but for its body, and how records are written."""

    invocation: Invocation
    form: Form


class Model:
    """The model behind one variant, for one explanation."""

    def __init__(self, endpoint: Endpoint, pattern: Pattern, made: Explainer) -> None:
        self._endpoint = endpoint
        self._pattern = pattern
        self._made = made
        self._records = made.most_records or _RECORDS

    async def scores(self, lines: Iterator[str], count: int) -> np.ndarray:
        """The scores of ``count`` records as they are written: float64 [records, outputs]. Raises the call's
        ``ServingError``; who is cancelled takes all calls back."""
        header = len(self._pattern.form.header.encode())
        batches = records.batches(lines, self._records, max(1, self._made.most_bytes - header))
        numbers, turn = itertools.count(), asyncio.Lock()
        found: dict[int, np.ndarray] = {}

        async def lane() -> None:
            while True:
                async with turn:
                    number, batch = next(numbers), await asyncio.to_thread(next, batches, None)
                if batch is None:
                    return
                found[number] = await self._answered(batch)
                _check_width(found[number].shape[1], count)

        width = min(_MOST_CALLS, max(1, _CALLS_A_WORKER * self._endpoint.workers))
        lanes = [asyncio.create_task(lane()) for _ in range(width)]
        try:
            await asyncio.gather(*lanes)
        finally:
            for one in lanes:
                one.cancel()
        every = [found[number] for number in sorted(found)]
        if len({part.shape[1] for part in every}) != 1:
            raise PredictionFailed("The model's answers to synthetic records have scores of several lengths.")
        return np.concatenate(every)

    async def _answered(self, lines: list[str]) -> np.ndarray:
        """One batch. A model that cannot answer several records at once, where nobody has said how many it can, is
        asked one by one from then on (``behaviour/06``: the count is tuned at run time)."""
        if self._records > 1 or self._made.most_records:
            try:
                return await self._call(lines)
            except (InvocationTimedOut, WorkerDied, OutOfMemory):
                raise
            except ModelError:
                if self._made.most_records or len(lines) == 1:
                    raise
                self._records = 1
        return np.concatenate([await self._call([line]) for line in lines])

    async def _call(self, lines: list[str]) -> np.ndarray:
        invocation, form = self._pattern
        body = (form.header + "".join(lines)).encode()
        reply = await answer(self._endpoint, invocation._replace(body=body))
        return await asyncio.to_thread(self._scores, reply, len(lines))

    def _scores(self, reply: Reply, count: int) -> np.ndarray:
        found = outputs.read(reply.body, reply.content_type)
        if len(found) != count:
            raise PredictionFailed(f"The model answered {len(found)} records to {count} synthetic ones.")
        return outputs.scores(found, records.kind_of(reply.content_type), self._made)


def _check_width(outputs: int, count: int) -> None:
    if outputs * count > _MOST_SCORES:
        raise ValidationError(
            f"Explaining a record takes {count:,} synthetic records of {outputs:,} scores each, more than "
            f"{_MOST_SCORES:,} in all: give a smaller SHAP baseline or NumberOfSamples."
        )
