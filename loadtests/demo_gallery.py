"""``python -m loadtests.demo gallery``: all families of built-in algorithms behind one multi-model endpoint, with
memory for only a part of them.

First each is called once by a server with ample memory, whose books say what all of them take together. Then another
has a part of that, and the Locust scenario ``gallery`` calls the families by Zipf's law: every answer must be the right
one while models come and go, and what is held must stay within the budget.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from loadtests.__main__ import main as run_scenario
from loadtests.families import Asked, trained
from loadtests.generator import Call
from loadtests.processes import Running, our_server
from loadtests.scrape import metric
from models import gallery

TARGET = "X-Amzn-SageMaker-Target-Model"
_HELD, _LOADED = "sagemaker_model_memory_bytes", "sagemaker_loaded_models"
_CACHE, _EVICTED = "sagemaker_model_cache_requests_total", "sagemaker_model_evictions_total"


class Books(NamedTuple):
    """What the families take in memory by the server's books, and what was wrong with their answers."""

    sizes: list[int]
    faults: list[str]

    def budget(self, share: float) -> int:
        """A ``share`` of what all take, and room for the largest with a little beside it at least: a model larger than
        the budget is refused."""
        return int(max(share * sum(self.sizes), 1.25 * max(self.sizes)))


def ask_all(server: Running, families: Sequence[Asked]) -> Books:
    """Call each once, one after the other."""
    sizes, faults, held = [], [], 0
    for one in families:
        answer = Call("/invocations", one.body, {**one.headers, TARGET: one.member}).once(server.port, 60)
        if answer.status != 200:
            faults.append(f"{one.family} answered {answer.status}: {answer.body[:200]!r}")
        elif fault := one.fault(answer.body, answer.headers["content-type"]):
            faults.append(fault)
        before, held = held, int(metric(server.port, _HELD))
        sizes.append(held - before)
    return Books(sizes, faults)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every answer was right, models had to make room, and the budget held."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.demo gallery", description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="length of the load (default: %(default)s)")
    parser.add_argument("--users", type=int, default=8, help="callers at once (default: %(default)s)")
    parser.add_argument("--share", type=float, default=0.5, help="part of the memory that all take (default: half)")
    parser.add_argument("--artifacts", type=Path, default=gallery.DEFAULT_OUT, help="where the families were trained")
    options = parser.parse_args(arguments)
    families = trained(options.artifacts)
    if not families:
        print("no family is trained: python -m models train")
        return 1
    members = str(options.artifacts / gallery.PACKED)
    with our_server(members) as server:
        books = ask_all(server, families)
    budget, faults = books.budget(options.share), books.faults
    print(f"{len(families)} families take {sum(books.sizes) / 1e6:.0f} MB; the budget is {budget / 1e6:.0f} MB")
    with our_server(members, environment={"SERVING_MODEL_MEMORY": str(budget)}) as server:
        common = ["--host", f"http://127.0.0.1:{server.port}", "--users", str(options.users)]
        scenario = ["gallery", *common, "--seconds", str(options.seconds), "--gallery-endpoint", "default"]
        if run_scenario([*scenario, "--gallery-artifacts", str(options.artifacts)]):
            faults.append("not every call was answered as its card says")
        hits, misses = (metric(server.port, _CACHE, {"result": result}) for result in ("hit", "miss"))
        held, loaded = metric(server.port, _HELD), metric(server.port, _LOADED)
        evicted = metric(server.port, _EVICTED)
    print(f"{hits:,.0f} calls found their model loaded, {misses:,.0f} did not; {evicted:,.0f} models made room")
    print(f"at the end {loaded:.0f} of {len(families)} were loaded, {held / 1e6:.0f} of {budget / 1e6:.0f} MB held")
    if not evicted:
        faults.append("no model had to make room")
    if held > budget:
        faults.append("more was held than the budget")
    for fault in faults:
        print(f"FAULT: {fault}")
    return 1 if faults else 0
