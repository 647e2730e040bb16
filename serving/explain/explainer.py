"""Explaining calls: what the explain process does for fronts and monitoring runs (``behaviour/06``, online
explanations).

::

    call ──► front ──► model ──► prediction ──► here: which records?  ──► coalitions of each ──► synthetic records
                                                                          ──► model, many times ──► attributions
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import numpy as np

from serving.endpoint import Directory, Endpoint, answer
from serving.errors import InvocationTimedOut, ObjectMissing, PredictionFailed, ServingError, ValidationError
from serving.explain import answers, coalitions, expressions, kernel, outputs, players, records, settings, trees
from serving.explain.answers import Explained, Subject
from serving.explain.forests import Forests
from serving.explain.model import Model, Pattern
from serving.explain.players import Feature
from serving.explain.records import Cell
from serving.explain.settings import Explainer
from serving.explain.trees import Leaves
from serving.objects import ObjectStore
from serving.types import Invocation
from serving.watch.metrics import Registry
from serving.workers.pool import TIMED_OUT

#: Calls that are explained at a time; others wait, as long as they have time.
_AT_ONCE = 4
#: Synthetic records for one record, players in it, and places of players in all its coalitions, which is what memory
#: goes by: 64 MB, three times.
_MOST_ROWS, _MOST_PLAYERS, _MOST_PLACES = 500_000, 1000, 8_000_000
#: Steps to leaves, of all rows of the baseline together: some seconds. A model that takes more is asked.
_MOST_STEPS = 200_000_000
#: A baseline's bytes, and those of all that are kept: as cells they take some ten times as much.
_LARGEST_BASELINE, _MOST_BASELINES = 2**24, 64
#: What is answered where the endpoint was updated meanwhile.
CHANGED = "changed"


class Game(NamedTuple):
    """What the records of one call are compared with, and by whom. ``types``: of the features, empty without text;
    ``leaves``: of a model whose trees add up to what is explained."""

    made: Explainer
    model: Model
    form: records.Form
    baseline: list[list[Cell]]
    types: tuple[str, ...]
    leaves: Leaves | None


class Explainers:
    """All of the process: questions in, explanations out."""

    def __init__(self, directory: Directory, objects: ObjectStore, registry: Registry) -> None:
        self._directory = directory
        self._objects = objects
        self._registry = registry
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._forests = Forests()
        self._baselines = Baselines()

    async def explain(self, args: Mapping[str, Any], payload: bytes) -> tuple[Any, bytes]:
        """A call of a front's and the model's answer to it -> the answer with explanations. ``payload``: both bodies,
        the first ``args["size"]`` bytes long. ``CHANGED`` instead when another deployment than ``args["deployment"]``
        has taken over: answer and explanations would be of different models. Raises ``ServingError``."""
        endpoint = self._directory.get(args["endpoint"])
        try:
            data = await self._explain(endpoint, args, payload)
        except ServingError:
            if endpoint.deployment == args["deployment"]:
                raise
            return CHANGED, b""
        return (None, data) if endpoint.deployment == args["deployment"] else (CHANGED, b"")

    async def _explain(self, endpoint: Endpoint, args: Mapping[str, Any], payload: bytes) -> bytes:
        began = time.monotonic()
        made = settings.explainer(args["config"])
        body, prediction = payload[: args["size"]], payload[args["size"] :]
        async with _in_time(args["seconds"]), self._gate:
            subject = await asyncio.to_thread(_subject, made, body, args["content_type"], prediction, args["answered"])
            wanted = await asyncio.to_thread(_wanted, args["explain"] or made.enable, subject)
            told: list[Explained | None] = [None] * len(wanted)
            if any(wanted):
                game = await self._game(endpoint, made, subject, args, began)
                told = await _explained(game, subject, wanted)
            data = await asyncio.to_thread(answers.answer, made, subject, prediction, args["answered"], told)
        self._count(args, sum(wanted), began)
        return data

    async def attributions(self, args: Mapping[str, Any], body: bytes) -> tuple[Any, bytes]:
        """Every record of a body, predicted and explained (``asking.py``): float64 [records, features, outputs] as
        bytes, a text's units added up. Raises ``ServingError``."""
        began = time.monotonic()
        endpoint = self._directory.get(args["endpoint"])
        config = args["config"] or endpoint.explainer
        if config is None:
            raise ValidationError(f"Endpoint {endpoint.name} has no explainer, and none is given.")
        settings.check(config)
        made = settings.explainer(config)
        args = {**args, "container": "", "component": "", "custom_attributes": "", "request_id": "attributions"}
        async with _in_time(args["seconds"]), self._gate:
            reply = await answer(endpoint, _invocation(args, began)._replace(body=body))
            kind = args["content_type"]
            subject = await asyncio.to_thread(_subject, made, body, kind, reply.body, reply.content_type)
            game = await self._game(endpoint, made, subject, args, began)
            every = [one for one in await _explained(game, subject, [True] * len(subject.found)) if one]
        values = np.stack([answers.by_feature(one.features, one.values) for one in every])
        headers = made.feature_headers or subject.read.names or [f"column_{at}" for at in range(values.shape[1])]
        told = {"headers": list(headers), "shape": list(values.shape), "expected": every[0].base.tolist()}
        return told, values.tobytes()

    def _count(self, args: Mapping[str, Any], records: int, began: float) -> None:
        if records:
            labels = args["endpoint"], args["variant"]
            self._registry.counter("sagemaker_explanations_total", *labels).add(records)
            seconds = time.monotonic() - began
            self._registry.histogram("sagemaker_explanation_seconds", *labels).observe(seconds)

    async def _game(
        self, endpoint: Endpoint, made: Explainer, subject: Subject, args: Mapping[str, Any], began: float
    ) -> Game:
        rows = await asyncio.to_thread(self._baseline, made)
        width = len(subject.read.rows[0])
        if len(rows[0]) != width:
            raise ValidationError(f"The request's records have {width} features, the SHAP baseline's {len(rows[0])}.")
        settings.check_baseline(made, rows)
        template = settings.template_of(made) if subject.read.kind == records.LINES else ""
        form = records.form_of(subject.read, template, settings.FEATURES)
        model = Model(endpoint, Pattern(_invocation(args, began), form), made)
        types, leaves = settings.types_of(made, rows), None
        if not types and not args["component"]:
            leaves = await self._forests.find(endpoint.target(args["variant"]), args["target_model"])
        if leaves is not None and not trees.adds_up(leaves, made.logit, len(rows)):
            leaves = None
        return Game(made, model, form, records.alike(rows, subject.read.kind), types, leaves)

    def _baseline(self, made: Explainer) -> list[list[Cell]]:
        """The baseline's rows; an object is read again when it has changed. Blocks. Raises ``ValidationError``."""
        url = made.baseline_uri
        if not url:
            return settings.baseline_of(made, made.baseline.encode())
        info = self._objects.stat(url)
        if info is None:
            raise ValidationError(f"There is no SHAP baseline at {url}.")
        if info.size > _LARGEST_BASELINE:
            raise ValidationError(f"The SHAP baseline {url} has more than {_LARGEST_BASELINE:,} bytes.")
        key = (url, info.version, made.baseline_type, made.features)
        rows = self._baselines.get(key)
        if rows is None:
            try:
                with self._objects.open(url, version=info.version) as source:
                    rows = settings.baseline_of(made, source.read(_LARGEST_BASELINE))
            except ObjectMissing:
                raise ValidationError(f"The SHAP baseline {url} was replaced while it was read.") from None
            self._baselines.keep(key, rows, info.size)
        return rows


class Baselines:
    """Baselines that were read, the oldest given up first. For several threads."""

    def __init__(self, most: int = _MOST_BASELINES, most_bytes: int = _LARGEST_BASELINE) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, ...], tuple[list[list[Cell]], int]] = {}

    def get(self, key: tuple[str, ...]) -> list[list[Cell]] | None:
        """The rows, if they are kept."""
        with self._lock:
            return self._kept.get(key, (None, 0))[0]

    def keep(self, key: tuple[str, ...], rows: list[list[Cell]], size: int) -> None:
        """Rows of an object of ``size`` bytes. It is kept in any case, others as far as there is room."""
        with self._lock:
            self._kept[key] = rows, size
            while len(self._kept) > 1 and not self._fits():
                del self._kept[next(iter(self._kept))]

    def _fits(self) -> bool:
        return len(self._kept) <= self._most and sum(size for _, size in self._kept.values()) <= self._most_bytes


# --- one call -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _in_time(seconds: float) -> AsyncIterator[None]:
    """Until the call's deadline; ``InvocationTimedOut`` in AWS's words afterwards."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise InvocationTimedOut(TIMED_OUT.format("primary")) from None


def _subject(made: Explainer, body: bytes, content_type: str, prediction: bytes, answered: str) -> Subject:
    """What a call was. Raises ``ValidationError``, and ``PredictionFailed`` when the answer is to other records."""
    read = records.read(body, content_type, made.features, "The request")
    found, kind = outputs.read(prediction, answered), records.kind_of(answered)
    if len(found) != len(read.rows):
        raise PredictionFailed(f"The model answered {len(found)} records to {len(read.rows)}.")
    return Subject(read, found, kind)


def _wanted(expression: str, subject: Subject) -> list[bool]:
    return [expressions.holds(expression, record) for record in subject.found]


def _invocation(args: Mapping[str, Any], began: float) -> Invocation:
    """A call of the same model as the one that is explained, but for its body."""
    return Invocation(
        args["endpoint"],
        b"",
        args["content_type"],
        args["accept"],
        args["request_id"],
        began + args["seconds"],
        target_model=args["target_model"],
        target_variant=args["variant"],
        target_container=args["container"],
        component=args["component"],
        custom_attributes=args["custom_attributes"],
        retries=0,  # a synthetic record that ends its worker is not tried on another
    )


async def _explained(game: Game, subject: Subject, wanted: Sequence[bool]) -> list[Explained | None]:
    """The wanted records, one after the other: each alone is calls enough for the model."""
    scores = await asyncio.to_thread(outputs.scores, subject.found, subject.kind, game.made)
    base: np.ndarray | None = None
    told: list[Explained | None] = []
    for row, prediction, is_wanted in zip(subject.read.rows, scores, wanted, strict=True):
        if not is_wanted:
            told.append(None)
            continue
        features = players.features(row, game.types, game.made.granularity)
        _size(game, features)
        if base is None or game.types:
            base = await _base(game, features)
        found = await asyncio.to_thread(_by_trees, game, row, prediction, base)
        told.append(Explained(features, *found) if found else await _values(game, features, prediction, base))
    return told


def _by_trees(
    game: Game, row: list[Cell], prediction: np.ndarray, base: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Values and base of a record by its model's own trees, if these predict what the model does: float64 [features, 1]
    and [1]. A model of trees may answer with something else than their sum; then it is asked like any other."""
    if game.leaves is None or game.leaves.feature.size * len(game.baseline) > _MOST_STEPS:
        return None
    numbers = trees.numbers([row, *game.baseline])
    if numbers is None or numbers.shape[1] != game.leaves.columns or len(prediction) != 1:
        return None
    start = np.array([trees.predicted(game.leaves, numbers[1:])])
    end = np.array([trees.predicted(game.leaves, numbers[:1])])
    link = kernel.logit if game.made.logit else kernel.identity
    if not trees.same(end, link(prediction)) or not trees.same(start, link(base)):
        return None
    return trees.attributions(game.leaves, numbers[0], numbers[1:])[:, None], start


async def _base(game: Game, features: tuple[Feature, ...]) -> np.ndarray:
    """What the model predicts where nothing of the record is kept, on average over the baseline: float64 [outputs]."""
    nothing = np.zeros((1, sum(one.players for one in features)), bool)
    found = await game.model.scores(players.lines(features, game.baseline, nothing, game.form), len(game.baseline))
    mean: np.ndarray = found.mean(0)
    return mean


async def _values(game: Game, features: tuple[Feature, ...], prediction: np.ndarray, base: np.ndarray) -> Explained:
    made, (count, wanted) = game.made, _size(game, features)
    if len(prediction) != len(base):
        raise PredictionFailed(f"The model answered {len(prediction)} scores, and {len(base)} for the baseline.")
    known, found = None, np.zeros((0, len(base)))
    if count > 1:
        seed = None if made.seed is None else made.seed % 2**64
        known = await asyncio.to_thread(coalitions.coalitions, count, wanted, np.random.default_rng(seed))
        lines = players.lines(features, game.baseline, known.masks, game.form)
        each = await game.model.scores(lines, len(known.masks) * len(game.baseline))
        if each.shape[1] != len(base):
            raise PredictionFailed("The model's answers to synthetic records have scores of several lengths.")
        found = each.reshape(len(known.masks), len(game.baseline), -1).mean(1)
    link = kernel.logit if made.logit else kernel.identity
    values = await asyncio.to_thread(kernel.attributions, known, found, prediction, base, link, count)
    return Explained(features, values, link(base))


def _size(game: Game, features: Sequence[Feature]) -> tuple[int, int]:
    """How many players a record has, and coalitions of them there shall be. Raises ``ValidationError`` for too many."""
    count = sum(one.players for one in features)
    wanted = coalitions.how_many(count, game.made.samples) if count > 1 else 0
    rows = max(1, wanted) * len(game.baseline)
    if count > _MOST_PLAYERS:
        raise ValidationError(
            f"A record of {count:,} features and units of text cannot be explained; {_MOST_PLAYERS:,} can. A coarser "
            "Granularity makes them fewer."
        )
    if rows > _MOST_ROWS or wanted * count > _MOST_PLACES:
        raise ValidationError(
            f"Explaining a record takes {rows:,} synthetic records, which is too many: give a smaller SHAP baseline or "
            "NumberOfSamples."
        )
    return count, wanted
