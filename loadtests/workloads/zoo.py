"""Five hundred models where fifty fit: the hit path, a cold call, warm callers beside a cold-loading one, memory."""

from __future__ import annotations

import contextlib
import json
import math
import random
import socket
import time
from collections.abc import Iterator
from functools import cache
from statistics import median
from urllib.parse import quote

from loadtests.client import ClientProcess, Count, Plan
from loadtests.figures import Zipf, median_ratio
from loadtests.generator import Call
from loadtests.inprocess import Cold
from loadtests.latency import timed
from loadtests.processes import Answer, Running, call, our_server, tree_bytes
from loadtests.report import Figure
from loadtests.scrape import metric
from loadtests.workloads.base import Bench, Card, failures, is_right, megabytes, microseconds, per_second

ROOM = 50
ZIPF = 1.1
TARGET = "X-Amzn-SageMaker-Target-Model"
_LOADED = "sagemaker_loaded_models"
_HELD = "sagemaker_model_memory_bytes"
_CACHE = "sagemaker_model_cache_requests_total"
_MISS = {"result": "miss"}
_SETTLE_SECONDS = 20.0


class Zoo:
    """The models in an order of fame, and a call to each."""

    def __init__(self, bench: Bench) -> None:
        card = Card(bench.artifacts, "zoo")
        self.path = bench.artifacts / "zoo"
        self.names = sorted(file.name for file in self.path.glob("*.ubj"))  # bare files: loading, not unpacking
        self.row = card.body("request.csv")
        self.answers = card.member_answers()
        for name in self.names:  # all in the page cache: we measure the server, not this machine's disk
            (self.path / name).read_bytes()

    def call(self, rank: int) -> Call:
        """A row to the model of this rank."""
        return Call("/invocations", self.row, {"Content-Type": "text/csv", TARGET: self.names[rank]})

    def is_right(self, rank: int, answer: Answer) -> bool:
        """Whether it is this model's own answer, and not another's."""
        return is_right(answer, self.answers[self.names[rank]])

    def zipf_calls(self, ranks: int, count: int = 4000) -> list[Call]:
        """``count`` calls drawn by Zipf's law over the first ``ranks`` models."""
        law = Zipf(ranks, ZIPF, random.Random(11))
        return [self.call(law.draw()) for _ in range(count)]

    @contextlib.contextmanager
    def server(self, budget: int) -> Iterator[Running]:
        """Our server over all the models with room for ``budget`` bytes."""
        with our_server(str(self.path), environment={"SERVING_MODEL_MEMORY": str(budget)}) as server:
            yield server


def _warm(bench: Bench, zoo: Zoo, server: Running, models: int) -> None:
    """Use the first ``models`` alike until nothing is loaded and improved any more: the books have been at rest for a
    second."""
    bench.load(server.port, [zoo.call(rank) for rank in range(models)], 16, 2)
    held, since = metric(server.port, _HELD), time.monotonic()
    limit = since + _SETTLE_SECONDS
    while time.monotonic() < min(since + 1.0, limit):
        server.look_again(0.1)
        if (now := metric(server.port, _HELD)) != held:
            held, since = now, time.monotonic()


@cache
def _budget(bench: Bench) -> int:
    """Bytes in which ``ROOM`` of the zoo's models fit, by the server's own books, once they have been in use for a
    while: a model that is called often may be given a faster engine, which takes more."""
    zoo = Zoo(bench)
    with our_server(str(zoo.path)) as server:
        for rank in range(ROOM):
            if not zoo.is_right(rank, answer := zoo.call(rank).once(server.port)):
                raise RuntimeError(f"{zoo.names[rank]} answered {answer.status}: {answer.body[:300]!r}")
        _warm(bench, zoo, server, ROOM)
        return int(metric(server.port, _HELD) / metric(server.port, _LOADED) * ROOM)


def many_models(bench: Bench) -> list[Figure]:
    """The three figures of speed."""
    zoo, budget = Zoo(bench), _budget(bench)
    bench.say(f"  room for {ROOM} of {len(zoo.names)} models: {megabytes(budget)}")
    with zoo.server(budget) as server:
        return [_hit_path(bench, zoo, server), _cold_call(bench, zoo, server), _warm_beside_cold(bench, zoo, server)]


def _hit_path(bench: Bench, zoo: Zoo, server: Running) -> Figure:
    """Calls spread by Zipf over models that are all in memory, beside the same load on one of them."""
    resident = ROOM * 4 // 5  # clear of the edge, where a model measured larger would push another out
    spread, single = zoo.zipf_calls(resident), [zoo.call(0)]
    _warm(bench, zoo, server, resident)
    missed = metric(server.port, _CACHE, _MISS)
    counts = bench.take_turns(
        {"zipf": lambda: bench.load(server.port, spread, 64), "single": lambda: bench.load(server.port, single, 64)}
    )
    missed = metric(server.port, _CACHE, _MISS) - missed
    rates = {name: [count.per_second for count in runs] for name, runs in counts.items()}
    return Figure(
        "500 models, room for 50", f"hit path: Zipf over {resident} resident / one model",
        per_second(median(rates["zipf"])), per_second(median(rates["single"])),
        median_ratio(rates["zipf"], rates["single"]), 0.7,
        note=f"{missed:.0f} misses", failures=failures(*counts.values()),
    )  # fmt: skip


def _cold_call(bench: Bench, zoo: Zoo, server: Running) -> Figure:
    """Single calls to models never called before, beside the library's load and predict of the same files, in turns."""
    ranks = range(2 * ROOM, 2 * ROOM + 20 * bench.rounds)
    row = zoo.row.decode().strip()
    ours: list[float] = []
    bare: list[float] = []
    wrong = 0
    with Cold() as cold, socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        cold.microseconds(zoo.path / zoo.names[0], row)  # imports the library
        timed(connection, zoo.call(0).raw())
        missed = metric(server.port, _CACHE, _MISS)
        for rank in ranks:
            taken, answer = timed(connection, zoo.call(rank).raw())
            ours.append(taken)
            wrong += not zoo.is_right(rank, answer)
            bare.append(cold.microseconds(zoo.path / zoo.names[rank], row))
        missed = metric(server.port, _CACHE, _MISS) - missed
    return Figure(
        "500 models, room for 50", "cold call / library's load + predict", microseconds(median(ours)),
        microseconds(median(bare)), median_ratio(ours, bare), 1.5, "<=",
        note=f"{missed:.0f} misses in {len(ranks)} calls", failures=wrong,
    )  # fmt: skip


def _warm_beside_cold(bench: Bench, zoo: Zoo, server: Running) -> Figure:
    """Eight callers of twenty warm models: p99 while a ninth calls one cold model after the other, beside calm.

    Calm is the calmest of the rounds in which nothing had to be loaded: what the cold calls left behind must not
    flatter the ratio.
    """
    warm = [zoo.call(rank) for rank in range(20)]
    cold = tuple(zoo.call(rank).raw() for rank in range(2 * ROOM, len(zoo.names)))
    missed: list[float] = []
    noises: list[Count] = []

    def calm() -> Count:
        _warm(bench, zoo, server, len(warm))
        before = metric(server.port, _CACHE, _MISS)
        count = bench.load(server.port, warm, 8)
        missed.append(metric(server.port, _CACHE, _MISS) - before)
        return count

    def disturbed() -> Count:
        with ClientProcess(Plan(server.port, cold, 1, bench.seconds + 2)) as noise:
            noise.busy(0.7)  # the client's interpreter starts
            count = bench.load(server.port, warm, 8)
            noises.append(noise.finish())
        return count

    counts = bench.take_turns({"calm": calm, "disturbed": disturbed})
    still = [count.p99_us for count, loads in zip(counts["calm"], missed, strict=True) if not loads]
    loud = [count.p99_us for count in counts["disturbed"]]
    notes = [f"{median(noise.per_second for noise in noises):.0f} cold loads a second beside it"]
    if len(still) < len(missed):
        notes.append(f"{len(missed) - len(still)} of {len(missed)} calm rounds were not: warm models had been evicted")
    return Figure(
        "500 models, room for 50", "p99 of warm models while others load / calm", microseconds(median(loud)),
        microseconds(min(still)) if still else "-", median(loud) / min(still) if still else math.inf, 2.0, "<=",
        note="; ".join(notes), failures=failures(*counts.values(), noises),
    )  # fmt: skip


def memory(bench: Bench) -> list[Figure]:
    """Resident memory of the whole process tree under a Zipf load of all models, and after all are unloaded.

    The start is measured after a few models were in use until their books rested, and were unloaded: the memory of the
    engines, which come with the first model that needs them, and of connections is not the cache's.
    """
    zoo, budget = Zoo(bench), _budget(bench)
    with zoo.server(budget) as server:
        _warm(bench, zoo, server, 4)
        _unload_all(server)
        start = tree_bytes(server.pid)
        plan = Plan(server.port, tuple(one.raw() for one in zoo.zipf_calls(len(zoo.names))), 16, 4.0 * bench.rounds)
        peak = start
        with ClientProcess(plan) as client:
            while client.busy(0.1):
                peak = max(peak, tree_bytes(server.pid))
            count = client.finish()
        hits, misses = (metric(server.port, _CACHE, {"result": result}) for result in ("hit", "miss"))
        _unload_all(server)
        end = _settled(server, start * 1.1)
    return [
        Figure("memory", "growth over start / budget", megabytes(peak - start), megabytes(budget),
               (peak - start) / budget, 1.1, "<=", failures=count.failures,
               note=f"Zipf over {len(zoo.names)}: {per_second(count.per_second)}, {hits / (hits + misses):.0%} hits"),
        Figure("memory", "after evicting everything / start", megabytes(end), megabytes(start), end / start, 1.1, "<="),
    ]  # fmt: skip


def _loaded(server: Running) -> list[str]:
    answer = call(server.port, "GET", "/models")
    return [model["modelName"] for model in json.loads(answer.body)["models"]] if answer.status == 200 else []


def _unload_all(server: Running) -> None:
    """Unload every model by the container's multi-model API."""
    for name in _loaded(server):
        call(server.port, "DELETE", f"/models/{quote(name, safe='')}")


def _settled(server: Running, enough: float) -> int:
    """Resident bytes once they are down to ``enough``, or when waiting longer is no use."""
    limit = time.monotonic() + _SETTLE_SECONDS
    held = tree_bytes(server.pid)
    while held > enough and time.monotonic() < limit:
        server.look_again()
        held = tree_bytes(server.pid)
    return held
