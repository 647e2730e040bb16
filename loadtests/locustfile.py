"""Locust scenarios for any SageMaker-shaped server. ``python -m loadtests SCENARIO --host URL`` runs one of them.

Users send their next call as soon as the last is answered. Endpoint names default to those of
``models/endpoints.yaml``; every option can be given as an environment variable too (``LOADTEST_...``).
"""

from __future__ import annotations

import logging
import random
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.families import Asked, trained
from loadtests.figures import Zipf, parse_weights, split_faults, split_shares
from loadtests.scrape import find_weights
from models.gallery import DEFAULT_OUT

# The first held-out rows of the data sets that the example models were trained on (30 and 10 columns).
TUMOUR_ROW = (
    "11.46,18.16,73.59,403.1,0.08853,0.07694,0.03344,0.01502,0.1411,0.06243,0.3278,1.059,2.475,22.93,0.006652,"
    "0.02652,0.02221,0.007807,0.01894,0.003411,12.68,21.61,82.69,489.8,0.1144,0.1789,0.1226,0.05509,0.2208,0.07638\n"
)
DIABETES_ROW = "41.0,2.0,21.2,102.0,184.0,100.4,64.0,3.0,4.585,79.0\n"
VARIANT = "x-amzn-invoked-production-variant"
TARGET = "X-Amzn-SageMaker-Target-Model"

# Request ids in failures' texts: with them no two failures would be alike.
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: What the order of fame of the gallery's families is drawn with: in their table the small ones come first.
_FAME = 11

#: Calls that each variant answered in this run; a run is a process.
ANSWERED: Counter[str] = Counter()


def add_options(parser: LocustArgumentParser) -> None:
    """The scenarios' own options."""

    def option(name: str, default: Any, text: str) -> None:
        variable = f"LOADTEST_{name.upper().replace('-', '_')}"
        parser.add_argument(f"--{name}", env_var=variable, type=type(default), default=default, help=text)

    option("endpoint", "default", "endpoint of a model of 30 columns (one_model, big_payload, mixed)")
    option("body", "", "file sent instead of a row of 30 columns")
    option("content-type", "text/csv", "what is in that file")
    option("ab-endpoint", "breast-cancer-ab", "endpoint of several variants, of 30 columns (ab_split, mixed)")
    option("weights", "", "promised shares, A=0.9,B=0.1; default: what GET /endpoints says (ab_split)")
    option("zoo-endpoint", "zoo", "multi-model endpoint, of 10 columns (multi_model_zipf, mixed)")
    option("zoo-names", "model-{:03d}.ubj", "TargetModel by rank, a Python format")
    option("zoo-models", 490, "how many target models there are")
    option("zoo-exponent", 1.1, "exponent of Zipf's law over them")
    option("rows", 10_000, "rows of a big payload")
    option("gallery-endpoint", "gallery", "multi-model endpoint of the built-in algorithms (gallery)")
    option("gallery-artifacts", str(DEFAULT_OUT), "where they were trained")


@cache
def _content(file: str) -> bytes:
    return Path(file).read_bytes()


class Caller(FastHttpUser):
    """What all scenarios share: a call to an endpoint, a failure unless it is answered 200 with something."""

    abstract = True
    wait_time = constant(0)
    network_timeout = connection_timeout = 60.0

    @property
    def options(self) -> Any:
        """The parsed command line."""
        return self.environment.parsed_options

    def invoke(
        self,
        endpoint: str,
        body: str | bytes,
        name: str,
        headers: dict[str, str] | None = None,
        asked: Asked | None = None,
    ) -> Any:
        """POST a ``body``, CSV unless ``headers`` say otherwise; the response, already judged, also by what was
        ``asked``. ``name`` is its line in the report."""
        path = f"/endpoints/{endpoint}/invocations"
        sent = {"Content-Type": "text/csv", **(headers or {})}
        data: Any = body  # bytes pass through, though locust declares text only
        with self.client.post(path, data=data, headers=sent, name=name, catch_response=True) as response:
            if response.status_code != 200:
                said = response.text or str(response.error or "")
                response.failure(f"{response.status_code}: {_ID.sub('<id>', said)[:200]}")
            elif not response.content:
                response.failure("an empty answer")
            elif asked and (fault := asked.fault(response.content, response.headers.get("content-type", ""))):
                response.failure(fault[:200])
        return response

    def single(self, endpoint: str, name: str) -> Any:
        """A row of 30 columns, or the file the user named, to ``endpoint``."""
        if file := self.options.body:
            return self.invoke(endpoint, _content(file), name, {"Content-Type": self.options.content_type})
        return self.invoke(endpoint, TUMOUR_ROW, name)

    def one_row(self) -> None:
        """A row to the single model."""
        self.single(self.options.endpoint, "one row")

    def ab_row(self) -> str:
        """A row to the endpoint of several variants; the variant that answered."""
        response = self.single(self.options.ab_endpoint, "a/b row")
        return str(response.headers.get(VARIANT, "")) if response.status_code == 200 else ""

    def zoo_row(self, law: Zipf) -> None:
        """A row to a model drawn by Zipf's law."""
        target = self.options.zoo_names.format(law.draw())
        self.invoke(self.options.zoo_endpoint, DIABETES_ROW, "zoo row", {TARGET: target})

    def big(self, rows: int) -> None:
        """Many rows in one call."""
        self.invoke(self.options.endpoint, TUMOUR_ROW * rows, f"{rows:,} rows")

    def zipf(self) -> Zipf:
        """The law of the zoo's options."""
        return Zipf(self.options.zoo_models, self.options.zoo_exponent, random.Random())


# From here on a class name is its scenario's name on the command line.


class one_model(Caller):
    """Single rows to one model."""

    @task
    def call(self) -> None:
        """One call."""
        self.one_row()


class ab_split(Caller):
    """Single rows to several variants; the run fails unless each gets its share within three standard deviations."""

    @task
    def call(self) -> None:
        """One call; calls that failed are failures already and no part of the split."""
        if variant := self.ab_row():
            ANSWERED[variant] += 1


class multi_model_zipf(Caller):
    """Single rows to one of several hundred models, few of them hot."""

    def on_start(self) -> None:
        """A law for each user."""
        self.law = self.zipf()

    @task
    def call(self) -> None:
        """One call."""
        self.zoo_row(self.law)


class big_payload(Caller):
    """Ten thousand rows in a call."""

    @task
    def call(self) -> None:
        """One call."""
        self.big(self.options.rows)


class gallery(Caller):
    """Each family's sample request to the multi-model endpoint of the gallery, few of them hot; the whole answer must
    be the one its card expects."""

    def on_start(self) -> None:
        """The families in an order of fame, the same for all users, and a law for each."""
        self.families = trained(Path(self.options.gallery_artifacts))
        if not self.families:
            raise RuntimeError("no family is trained: python -m models train")
        random.Random(_FAME).shuffle(self.families)
        self.law = Zipf(len(self.families), self.options.zoo_exponent, random.Random())

    @task
    def call(self) -> None:
        """One call."""
        one = self.families[self.law.draw()]
        headers = {**one.headers, TARGET: one.member}
        self.invoke(self.options.gallery_endpoint, one.body, one.family, headers, one)


class mixed(Caller):
    """A bit of everything: of ten calls six single rows, two to the variants, two to the zoo; sometimes a big one."""

    def on_start(self) -> None:
        """A law for each user."""
        self.law = self.zipf()

    @task(60)
    def row(self) -> None:
        """A row."""
        self.one_row()

    @task(20)
    def variants(self) -> None:
        """A row to the variants."""
        self.ab_row()

    @task(20)
    def zoo(self) -> None:
        """A row to the zoo."""
        self.zoo_row(self.law)

    @task(1)
    def many(self) -> None:
        """A tenth of a big payload."""
        self.big(max(1, self.options.rows // 10))


def show_errors(environment: Environment, **_: Any) -> None:
    """The commonest failures, in words: the JSON report only counts them."""
    for error in sorted(environment.stats.errors.values(), key=lambda error: -error.occurrences)[:5]:
        print(f"{error.occurrences:,} x {error.name}: {error.error}")


def judge_split(environment: Environment, **_: Any) -> None:
    """After an ``ab_split`` run: print the shares, and fail the run when one is off."""
    if ab_split not in environment.user_classes:
        return
    weights = _weights(environment)
    for share in split_shares(ANSWERED, weights):
        print(f"{share.variant}: {share.calls} calls, {share.expected:.0f} promised, {share.deviation:.1f} sigma off")
    for fault in split_faults(ANSWERED, weights):
        logging.error("traffic split: %s", fault)
        environment.process_exit_code = 1


def _weights(environment: Environment) -> dict[str, float]:
    """The promised shares: the option, else the weights the server shows."""
    options = environment.parsed_options
    if options is None:
        raise RuntimeError("the scenarios are run from locust's command line")
    if options.weights:
        return parse_weights(options.weights)
    import requests  # a dependency of locust's

    answer = requests.get(f"{environment.host}/endpoints", timeout=10)
    weights = find_weights(answer.json(), options.ab_endpoint) if answer.ok else {}
    if not weights:
        raise RuntimeError(f"the server does not show the weights of {options.ab_endpoint!r}: give --weights")
    return weights


events.init_command_line_parser.add_listener(add_options)  # type: ignore[no-untyped-call]  # locust's own
for judge in (show_errors, judge_split):
    events.quitting.add_listener(judge)  # type: ignore[no-untyped-call]
