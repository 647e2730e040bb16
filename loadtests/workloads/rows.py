"""One CSV row to the XGBoost model (100 trees of depth 6, 30 features), and ten thousand of them in one call."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from loadtests.client import Count
from loadtests.figures import median_ratio
from loadtests.generator import Call
from loadtests.inprocess import measure
from loadtests.processes import Running, cores, free_port, our_server, python, running, tree_cpu_seconds
from loadtests.report import Figure
from loadtests.workloads.base import Bench, Card, failures, is_right, microseconds, per_second

MODEL = "bench-xgboost"
CSV = {"Content-Type": "text/csv"}
_COPIES = 100  # of the card's 100 rows: 10,000
_PLAIN, _TUNED = "plain", "plain, one thread"


def one_row_call(bench: Bench) -> Call:
    """The card's one-row request to the default endpoint."""
    return Call("/invocations", Card(bench.artifacts, MODEL).body("request.csv"), CSV)


def _floor(port: int, artifact: Path) -> list[str]:
    # As many native threads as our one worker has, so that only the serving differs.
    return python("loadtests.floor", "--model", str(artifact), "--port", str(port), "--threads", str(cores()))


def _plain(port: int, artifact: Path) -> list[str]:
    return python("loadtests.plain", "--model", str(next(artifact.iterdir())), "--port", str(port))


def _start_sides(stack: contextlib.ExitStack, artifact: Path) -> dict[str, Running]:
    """Ours, the floor, and the plain app twice: as people start it, and with the one setting that helps it most."""
    sides = {"ours": stack.enter_context(our_server(str(artifact)))}
    others: dict[str, tuple[Callable[[int, Path], list[str]], Mapping[str, str]]] = {
        "floor": (_floor, {}),
        _PLAIN: (_plain, {}),
        _TUNED: (_plain, {"OMP_NUM_THREADS": "1"}),
    }
    for name, (command, environment) in others.items():
        port = free_port()
        sides[name] = stack.enter_context(running(command(port, artifact), port, environment))
        sides[name].wait_ready()
    return sides


def _wrong(bench: Bench, sides: Sequence[Running]) -> int:
    """Wrong answers to the card's samples, over all sides."""
    card = Card(bench.artifacts, MODEL)
    wrong = 0
    for name in ("request", "batch"):
        call, expected = Call("/invocations", card.body(f"{name}.csv"), CSV), card.expected(name)
        wrong += sum(not is_right(call.once(side.port), expected) for side in sides)
    return wrong


class _Sides:
    """The servers that take turns, what came of it, and what processor time a call cost each of them."""

    def __init__(self, bench: Bench, sides: Mapping[str, Running]) -> None:
        self._bench = bench
        self._call = one_row_call(bench)
        self._sides = sides
        self.cpu_us: dict[str, list[float]] = {name: [] for name in sides}

    def _load(self, name: str, connections: int) -> Count:
        side = self._sides[name]
        before = tree_cpu_seconds(side.pid)
        count = self._bench.load(side.port, [self._call], connections)
        if connections > 1:
            self.cpu_us[name].append((tree_cpu_seconds(side.pid) - before) * 1e6 / max(count.calls, 1))
        return count

    def warm(self) -> None:
        """Connections, allocators, the engine chosen."""
        for side in self._sides.values():
            self._bench.load(side.port, [self._call], 64, min(2, self._bench.seconds))

    def rounds(self, names: Iterable[str], connections: int) -> dict[str, list[Count]]:
        """Turns of the named sides."""
        return self._bench.take_turns({name: partial(self._load, name, connections) for name in names})


def one_row(bench: Bench) -> list[Figure]:
    """Ours, the floor and the plain app in turns, with 64 connections; ours and the floor with one."""
    with contextlib.ExitStack() as stack:
        servers = _start_sides(stack, bench.artifacts / MODEL)
        wrong = _wrong(bench, list(servers.values()))
        sides = _Sides(bench, servers)
        sides.warm()
        many, one = sides.rounds(servers, 64), sides.rounds(["ours", "floor"], 1)
    cost = {name: median(values) for name, values in sides.cpu_us.items()}
    return _one_row_figures(many, one, cost, wrong + failures(*many.values(), *one.values()))


def _one_row_figures(
    many: Mapping[str, list[Count]], one: Mapping[str, list[Count]], cost: Mapping[str, float], failed: int
) -> list[Figure]:
    rate = {name: median(count.per_second for count in counts) for name, counts in many.items()}
    tail = {name: median(count.p99_us for count in counts) for name, counts in many.items()}
    alone = {name: median(count.p50_us for count in counts) for name, counts in one.items()}
    best = max((_PLAIN, _TUNED), key=rate.__getitem__)  # the stronger of the two is the one to beat
    spent = f"processor time a call: {cost['ours']:.0f} µs, floor {cost['floor']:.0f} µs"
    plain = f"the better of {per_second(rate[_PLAIN])} by default and {per_second(rate[_TUNED])} with OMP_NUM_THREADS=1"
    return [
        Figure("one row, 64 connections", "throughput / floor's", per_second(rate["ours"]), per_second(rate["floor"]),
               rate["ours"] / rate["floor"], 0.7, note=spent, failures=failed),
        Figure("one row, 64 connections", "p99 / floor's", microseconds(tail["ours"]), microseconds(tail["floor"]),
               tail["ours"] / tail["floor"], 2.0, "<=", failures=failed),
        Figure("one row, 1 connection", "p50 above floor's", microseconds(alone["ours"]),
               microseconds(alone["floor"]), alone["ours"] - alone["floor"], 100.0, "<=", "µs", failures=failed),
        Figure("plain Starlette app", "our throughput / its", per_second(rate["ours"]), per_second(rate[best]),
               rate["ours"] / rate[best], 5.0, note=plain, failures=failed),
    ]  # fmt: skip


def many_rows(bench: Bench) -> list[Figure]:
    """Ten thousand rows of CSV in one call, beside parse + predict of the same body in a process."""
    artifact, card = bench.artifacts / MODEL, Card(bench.artifacts, MODEL)
    call = Call("/invocations", card.body("batch.csv") * _COPIES, CSV)
    inside: list[float] = []
    counts: list[Count] = []
    with tempfile.TemporaryDirectory(prefix="bench-body-") as folder, our_server(str(artifact)) as ours:
        body = Path(folder) / "rows.csv"
        body.write_bytes(call.body)
        wrong = not is_right(call.once(ours.port), card.expected("batch") * _COPIES)
        bench.load(ours.port, [call], 1, 1)
        for number in range(bench.rounds):
            counts.append(bench.load(ours.port, [call], 1))
            inside.append(measure(artifact, body, "text/csv", cores(), bench.seconds))
            bench.say(f"  round {number + 1}: {counts[-1].p50_us / 1e3:.1f} ms, in-process {inside[-1] * 1e3:.1f} ms")
    times = [count.p50_us / 1e6 for count in counts]
    return [
        Figure("10,000 rows CSV in one call", "speed / in-process parse + predict", microseconds(median(times) * 1e6),
               microseconds(median(inside) * 1e6), 1 / median_ratio(times, inside), 0.7,
               note=f"{len(call.body) / 1e6:.1f} MB body; ours also encodes and sends the answers",
               failures=wrong + failures(counts)),
    ]  # fmt: skip
