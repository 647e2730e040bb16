"""Locust's part of ``python -m loadtests.demo ab``: patients are sent, and what they had is told some calls later."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser

#: Calls after which the labels of these calls are sent, as an application that learns them later would.
_TOGETHER = 20


def add_options(parser: LocustArgumentParser) -> None:
    """What is sent where."""
    parser.add_argument("--patients", type=str, default="", help="CSV rows, the label first")
    parser.add_argument("--endpoints", type=str, default="", help="names of endpoints, each of which gets every call")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of rows")


class Clinic(FastHttpUser):
    """Sends patients one after the other, with an inference id, and their labels together."""

    wait_time = constant_throughput(8)
    _users = 0

    def on_start(self) -> None:
        """Rows, and a draw of its own."""
        options: Any = self.environment.parsed_options
        self.number = Clinic._users
        Clinic._users += 1
        self.dice = random.Random(options.seed + self.number)
        self.endpoints = options.endpoints.split(",")
        self.rows = [line.partition(",")[::2] for line in Path(options.patients).read_text().splitlines()]
        self.calls = 0
        self.labels: list[str] = []

    @task
    def patient(self) -> None:
        """One patient, to each endpoint."""
        label, row = self.dice.choice(self.rows)
        id = f"clinic-{self.number}-{self.calls}"
        self.calls += 1
        headers = {"Content-Type": "text/csv", "X-Amzn-SageMaker-Inference-Id": id}
        for endpoint in self.endpoints:
            self.client.post(f"/endpoints/{endpoint}/invocations", data=row, headers=headers, name=endpoint)
        self.labels.append(json.dumps({"InferenceId": id, "Label": int(float(label))}))
        if len(self.labels) >= _TOGETHER:
            self.send_labels()

    def send_labels(self) -> None:
        """What became known of the last patients."""
        body, self.labels = "\n".join(self.labels), []
        for endpoint in self.endpoints:
            self.client.post(f"/endpoints/{endpoint}/ground-truth", data=body, name=f"{endpoint} labels")


events.init_command_line_parser.add_listener(add_options)  # type: ignore[no-untyped-call]  # locust's own
