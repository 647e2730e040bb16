"""``serving baseline`` and ``drift``: what data was like, and whether an endpoint's calls are still like that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.cli.options import AsJson, SettingsFile, Url, server_at
from serving.config import load_settings
from serving.terminal import busy, print_json, print_table, tell

if TYPE_CHECKING:
    from serving.baselines import Baseline

Header = Annotated[bool, typer.Option("--header/--no-header", help="Whether a CSV dataset's first row has names.")]
Label = Annotated[str, typer.Option(metavar="COLUMN", help="The dataset's label, which requests do not have.")]


def baseline(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A .csv, .jsonl or .parquet: file or s3:// URL.")],
    output: Annotated[str, typer.Option(metavar="FOLDER|s3://...", help="Where the two files go.")] = ".",
    label: Label = "",
    header: Header = True,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what data is like: statistics.json and constraints.json of a dataset, for schedules and for drift."""
    from serving import baselines

    settings = load_settings({"settings_file": settings_file})
    with busy("reading"):
        made = baselines.of_dataset(settings, dataset, header, label)
    assert made.statistics is not None
    documents = {"statistics.json": made.statistics, "constraints.json": made.constraints}
    places = baselines.put(settings, output, documents)
    _tell_left_out(made)
    rows, columns = made.statistics["dataset"]["item_count"], len(made.statistics["features"])
    if as_json:
        print_json({"Rows": rows, "Columns": columns, "Files": places})
    else:
        print(f"{rows:,} rows, {columns} columns: {' '.join(places)}")


def drift(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of an endpoint that captures its calls.")],
    baseline: Annotated[
        str,
        typer.Option(
            metavar="DATASET|constraints.json",
            help="The training data (.csv, .jsonl, .parquet), or its constraints.json: file or s3:// URL.",
        ),
    ],
    statistics: Annotated[
        str, typer.Option(metavar="statistics.json", help="With a constraints.json; default: the one beside it.")
    ] = "",
    since: Annotated[str, typer.Option(help="Calls since then: a time, or how long ago (30m, 24h, 7d).")] = "24h",
    until: Annotated[str, typer.Option(help="Calls until then; default: now.")] = "",
    label: Label = "",
    variant: Annotated[str, typer.Option(help="Only calls that this variant answered.")] = "",
    target_model: Annotated[str, typer.Option(help="Only calls of this model of a multi-model endpoint.")] = "",
    output: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|s3://...", help="Also write statistics, constraints and violations (needs manage)."
        ),
    ] = "",
    header: Header = True,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Say whether an endpoint's calls are still like its training data, by column; exit status 1 when not. Captured CSV
    has no names: the dataset's columns are the requests', in order, without the label (--label; else a column called
    label, target, class or y, the first or the last)."""
    from serving import baselines

    settings = load_settings({"settings_file": settings_file})
    server = server_at(url, settings_file)
    asked = {"since": since, "until": until, "variant": variant, "target-model": target_model}
    if baseline.endswith(".json"):
        asked["label"] = label
    with busy("reading the baseline"):
        made = baselines.given(settings, baseline, statistics, header, label)
    _tell_left_out(made)
    with busy("reading captures"):
        found = baselines.drift(server, endpoint, made, {**asked, "documents": "true" if output else ""})
    documents: dict[str, Any] = found.pop("Documents", {})
    for place in baselines.put(settings, output, documents) if output else ():
        tell(f"wrote {place}")
    if as_json:
        print_json(found)
    else:
        print_table(baselines.DRIFT_HEADINGS, baselines.rows(found))
        print()
        for line in baselines.sentences(found):
            print(line)
        tell(baselines.layout(found))
    for one in found["Complaints"]:
        tell(f"left out: {one['reason']}, {one['times']} times, such as {one['example'] or '-'}")
    raise typer.Exit(1 if found["Violations"] else 0)


def _tell_left_out(made: Baseline) -> None:
    from serving import baselines

    for line in baselines.complaint_lines(made.complaints):
        tell(f"the dataset: {line}")
