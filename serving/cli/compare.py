"""``serving verdict``, ``shadow``, ``replay``: which of two models is right, from what was written down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.cli.options import AsJson, SettingsFile, Url, server_at
from serving.config import Settings, load_settings
from serving.errors import ConfigError
from serving.terminal import bar, busy, complain, print_json, print_table, tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving.client import Server
    from serving.monitor.values import Complaints, Record
    from serving.replaying import Limits, Replay, Target

Name = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")]
Since = Annotated[
    str,
    typer.Option(help="Only calls since then: a time, or how long ago (30m, 24h, 7d); default: the last deployment."),
]
Inference = Annotated[str, typer.Option(help="Where an answer's label stands: a CSV column, or a JMESPath.")]
Probability = Annotated[str, typer.Option(help="Where its probability stands.")]
Threshold = Annotated[float | None, typer.Option(help="Probability from which an answer is positive.")]


def verdict(
    endpoint: Name,
    metric: Annotated[
        str, typer.Option(help="What counts: accuracy, auc, rmse, business (mean label), error-rate, latency.")
    ] = "accuracy",
    baseline: Annotated[str, typer.Option(help="The variant to beat; default: the one with the most weight.")] = "",
    challenger: Annotated[
        list[str] | None, typer.Option(help="A variant that might; again for each; default: all others.")
    ] = None,
    since: Since = "",
    minimum_effect: Annotated[float | None, typer.Option(help="The smallest gain that counts.")] = None,
    alpha: Annotated[float, typer.Option(help="Share of wrong decisions.")] = 0.05,
    better: Annotated[str, typer.Option(help="Of a business number: higher or lower.")] = "",
    inference: Inference = "",
    probability: Probability = "",
    threshold: Threshold = None,
    exit_code: Annotated[
        str, typer.Option(metavar="DECISION=STATUS,...", help="Exit status by decision, such as wait=3,rollback=4.")
    ] = "",
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Say which variant is better: keep, promote, roll back, or wait. One may look at any time."""
    from serving import comparing

    statuses = comparing.exit_statuses(exit_code)
    asked = {
        "metric": metric,
        "baseline": baseline,
        "challenger": challenger or [],
        "since": since,
        "minimum-effect": minimum_effect,
        "alpha": alpha,
        "better": better,
        "inference": inference,
        "probability": probability,
        "threshold": threshold,
    }
    server = server_at(url, settings_file)
    with busy("reading captures"):
        found = comparing.verdict(server, endpoint, asked)
    if as_json:
        print_json(found)
    else:
        print_table(*comparing.verdict_table(found))
        for one in comparing.sentences(found):
            print(one)
    _tell_complaints(found)
    raise typer.Exit(statuses.get(found["Decision"], 0))


def shadow(
    endpoint: Name,
    variant: Annotated[str, typer.Option("--shadow", help="The shadow variant, where there are several.")] = "",
    since: Since = "",
    kind: Annotated[str, typer.Option(help="classification, regression or text; default: as answers look.")] = "",
    examples: Annotated[int, typer.Option(min=0, max=100, help="Worst examples to show.")] = 5,
    bodies: Annotated[bool, typer.Option("--bodies", help="Show their inputs and answers (needs manage).")] = False,
    inference: Inference = "",
    probability: Probability = "",
    threshold: Threshold = None,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Say how often and how far a shadow variant's answers differ from production's, and how much longer it takes."""
    from serving import comparing

    asked = {
        "shadow": variant,
        "since": since,
        "kind": kind,
        "examples": examples,
        "bodies": "true" if bodies else "",
        "inference": inference,
        "probability": probability,
        "threshold": threshold,
    }
    server = server_at(url, settings_file)
    with busy("reading captures"):
        found = comparing.shadow_report(server, endpoint, asked)
    if as_json:
        print_json(found)
        return
    print(found["Sentence"])
    for heading, rows in comparing.difference_tables(found):
        print()
        print_table(heading, rows)
    _tell_complaints(found)


def replay(
    captures: Annotated[
        str,
        typer.Argument(help="Captured calls: an s3:// prefix, a file or folder (- = standard input), or an endpoint."),
    ],
    to: Annotated[str, typer.Option(metavar="ENDPOINT[/VARIANT]", help="Where they go.")],
    pace: Annotated[str, typer.Option("--rate", metavar="2x|max|recorded", help="How fast.")] = "recorded",
    limit: Annotated[int | None, typer.Option(min=1, help="Calls at most.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Calls on their way at once.")] = 16,
    fail_below_agreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="Fail when fewer answers are the same.")
    ] = None,
    fail_above_error: Annotated[
        float | None, typer.Option(min=0, max=1, help="Fail when a larger share of calls does.")
    ] = None,
    fail_above_latency_ratio: Annotated[
        float | None, typer.Option(min=0, help="Fail when the median latency is more times what was captured.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write everything there.")] = None,
    kind: Annotated[str, typer.Option(help="classification, regression or text; default: as answers look.")] = "",
    tolerance: Annotated[float, typer.Option(min=0, help="Relative error up to which numbers are the same.")] = 1e-6,
    inference: Inference = "",
    probability: Probability = "",
    threshold: Threshold = None,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Send captured calls again, to another variant or server, and compare the answers. Exit status 1 beyond limits."""
    from serving import replaying
    from serving.monitor.difference import Comparison
    from serving.monitor.predictions import Attributes, check
    from serving.monitor.values import Complaints

    target, times = replaying.target(to), replaying.rate(pace)
    limits = replaying.Limits(fail_below_agreement, fail_above_error, fail_above_latency_ratio)
    attributes = Attributes(inference, probability, threshold)
    check(attributes)
    complaints = Complaints()
    comparison = Comparison(kind, attributes, 10, complaints, tolerance)  # type: ignore[arg-type]  # checked there
    settings = load_settings({"settings_file": settings_file})
    server = server_at(url, settings_file)
    with bar("replaying") as shown:
        replayer = replaying.Replayer(
            server, target, comparison, complaints, concurrency, lambda done, words: shown(done, limit or 0, words)
        )
        done = replayer.run(_records(captures, server, settings, complaints, limit), times)
    _print_replay(done, limits, report, as_json, captures, target)
    raise typer.Exit(0 if all(one.held for one in done.against(limits)) else 1)


def _records(
    captures: str, server: Server, settings: Settings, complaints: Complaints, limit: int | None
) -> Iterator[Record]:
    """What was captured, about in order of time."""
    from itertools import islice

    from serving import comparing
    from serving.monitor import files
    from serving.objects import open_objects

    if captures.startswith("s3://"):
        found = files.in_order(files.at_prefix(open_objects(settings), captures), complaints)
    elif captures == "-" or "/" in captures or Path(captures).exists():
        found = files.in_order(files.at_path(Path(captures)), complaints)
    else:
        found = comparing.captured(server, captures, complaints)
    return islice(files.originals(found, complaints), limit)


def _print_replay(
    done: Replay, limits: Limits, report: Path | None, as_json: bool, captures: str, target: Target
) -> None:
    from serving import comparing

    told: dict[str, Any] = {"Captures": captures, "Target": "/".join(filter(None, target)), **done.as_json(limits)}
    if report is not None:
        import json

        try:
            report.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"Cannot write {report}: {error.strerror}.") from None
    if as_json:
        print_json(told)
    else:
        for name, text in comparing.replay_facts(told):
            print(f"{name:<16}{text}")
        for heading, rows in comparing.difference_tables(told["Difference"]):
            print()
            print_table(heading, rows)
    for one in done.complaints.all():
        tell(f"{one.times:,} x {one.reason} (first: {one.example})")
    for judged in done.against(limits):
        if not judged.held:
            value = "unknown" if judged.value is None else f"{judged.value:.6g}"
            complain(f"{judged.name} is {value}; the limit is {judged.limit:g}")


def _tell_complaints(found: dict[str, Any]) -> None:
    for one in found["Complaints"]:
        tell(f"{one['Times']:,} x {one['Reason']}")
