"""A convolution net of about 5 ms on raw float32 pictures."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from loadtests.client import Count
from loadtests.figures import median_ratio
from loadtests.generator import Call
from loadtests.inprocess import measure
from loadtests.processes import cores, our_server
from loadtests.report import Figure
from loadtests.workloads.base import Bench, Card, failures, is_right, per_second

MODEL = "bench-convnet"
RAW = "application/octet-stream"
_CALLERS = 8


def convnet(bench: Bench) -> list[Figure]:
    """Eight callers, beside a process that predicts in a loop.

    That process has the native threads our one worker has (all cores), no client and no front beside it, and predicts
    a picture a call, as each caller would with the model in its own process. What it would gain from stacking eight
    pictures is measured too, and noted.
    """
    artifact, card = bench.artifacts / MODEL, Card(bench.artifacts, MODEL)
    picture = np.load(io.BytesIO(card.body("request.npy")), allow_pickle=False)
    call = Call("/invocations", picture.astype("<f4").tobytes(), {"Content-Type": RAW})
    inside: list[float] = []
    counts: list[Count] = []
    with tempfile.TemporaryDirectory(prefix="bench-body-") as folder, our_server(str(artifact)) as ours:
        body = Path(folder) / "picture"
        body.write_bytes(call.body)
        wrong = not is_right(call.once(ours.port), card.expected("request"))
        bench.load(ours.port, [call], _CALLERS, 1)
        for number in range(bench.rounds):
            counts.append(bench.load(ours.port, [call], _CALLERS))
            inside.append(measure(artifact, body, RAW, cores(), bench.seconds))
            bench.say(f"  round {number + 1}: {counts[-1].per_second:.0f}/s, in-process {1 / inside[-1]:.0f}/s")
        stacked = measure(artifact, body, RAW, cores(), bench.seconds, together=_CALLERS)
    rates, alone = [count.per_second for count in counts], [1 / seconds for seconds in inside]
    return [
        Figure("convolution net, 8 connections", "throughput / in-process", per_second(median(rates)),
               per_second(median(alone)), median_ratio(rates, alone), 0.9,
               note=f"{len(call.body) / 1e3:.0f} kB body; in-process {median(inside) * 1e3:.1f} ms a picture, "
                    f"{stacked * 1e3:.1f} ms in stacks of {_CALLERS}",
               failures=wrong + failures(counts)),
    ]  # fmt: skip
