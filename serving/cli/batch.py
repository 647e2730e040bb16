"""``serving transform`` and ``serving transforms``: batch transform jobs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.options import AsJson, SettingsFile, Url, server_at
from serving.errors import ConfigError, ServiceUnavailable
from serving.terminal import bar, complain, print_json, print_table, tell

if TYPE_CHECKING:
    from serving.client import Server
    from serving.declared import Body


def transform(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model of the server, or the s3:// or file:// URL of an artifact.")
    ],
    source: Annotated[str, typer.Argument(metavar="INPUT", help="s3:// prefix of the objects to read.")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="s3:// prefix of the objects to write.")],
    name: Annotated[str, typer.Option(help="Name of the job; default: the model's with the time.")] = "",
    content_type: Annotated[str, typer.Option(help="Media type of the input; guessed from INPUT's ending.")] = "",
    accept: Annotated[str, typer.Option(help="Media type wanted; default for CSV and JSON Lines: the input's.")] = "",
    split: Annotated[str, typer.Option(help="None, Line, RecordIO or TFRecord; Line for CSV and JSON Lines.")] = "",
    assemble: Annotated[str, typer.Option(help="None or Line; default: Line when split by lines.")] = "",
    strategy: Annotated[str, typer.Option(help="MultiRecord or SingleRecord: records in a request.")] = "",
    input_filter: Annotated[str, typer.Option(metavar="JSONPATH", help="Part of a record that the model sees.")] = "",
    output_filter: Annotated[str, typer.Option(metavar="JSONPATH", help="Part of a result that is written.")] = "",
    join: Annotated[bool, typer.Option("--join", help="Write each input record with its result.")] = False,
    manifest: Annotated[bool, typer.Option("--manifest", help="INPUT is a manifest that lists the objects.")] = False,
    gzip: Annotated[bool, typer.Option("--gzip", help="The input is compressed; told by .gz, too.")] = False,
    instances: Annotated[int, typer.Option(min=1, max=100, help="Workers of the job.")] = 1,
    max_payload: Annotated[int | None, typer.Option(min=0, max=100, help="MB of a request at most; default 6.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, max=100, help="Requests at once for each worker.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Variable of the model.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job until it has ended.")] = True,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Run a model over all the records of many objects: a job with workers of its own, which goes on without us."""
    from serving import transforming

    wish = transforming.Wish(
        model=model, source=source, output=output, name=name, content_type=content_type, accept=accept, split=split,
        assemble=assemble, strategy=strategy, input_filter=input_filter, output_filter=output_filter, join=join,
        manifest=manifest, gzip=gzip, instances=instances, payload=max_payload, concurrent=concurrent, env=env or (),
    )  # fmt: skip
    server = server_at(url, settings_file)
    begun = transforming.begin(server, wish, tell)
    if wait:
        tell(f"job {begun}")
        _print_job(_followed(server, begun), as_json)
    elif as_json:
        print_json(transforming.look(server, begun))
    else:
        print(begun)


def transforms(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="One of the jobs.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Of JOB: follow it until it has ended.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Of JOB: stop it; it leaves no output.")] = False,
    status: Annotated[str, typer.Option(help="Of the list: only jobs of this status.")] = "",
    most: Annotated[int, typer.Option("--max", min=1, max=100_000, help="Of the list: so many, newest first.")] = 100,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """List the transform jobs; show, follow or stop one."""
    from serving import transforming

    if job is None and (wait or stop):
        raise ConfigError("--wait and --stop are for one job: name it.")
    server = server_at(url, settings_file)
    if job is None:
        found = transforming.listed(server, status, most)
        if as_json:
            print_json({"TransformJobSummaries": found})
        else:
            print_table(transforming.HEADINGS, transforming.rows(found, time.time()))
        return
    if stop:
        transforming.stop(server, job)
    _print_job(_followed(server, job) if wait else transforming.look(server, job), as_json, asked=not wait)


def _followed(server: Server, name: str) -> Body:
    """A job that has ended. Whoever leaves before that leaves the job as it is."""
    from serving import transforming

    try:
        with bar(name) as shown:
            return transforming.follow(
                server, name, lambda job: shown(*transforming.done(job), transforming.standing(job))
            )
    except (KeyboardInterrupt, ServiceUnavailable) as error:
        tell(f"job {name} goes on; follow it: serving transforms {name} --wait, or stop it: --stop instead")
        if isinstance(error, ServiceUnavailable):
            raise
        raise typer.Exit(130) from None


def _print_job(job: Body, as_json: bool, asked: bool = False) -> None:
    """All there is to say of a job; exit status 1 when it has ended and did not do what it should, unless it was only
    ``asked`` how it stands."""
    from serving import transforming

    if as_json:
        print_json(job)
    else:
        for name, text in transforming.facts(job):
            print(f"{name:<13}{text}")
    if not asked and job["TransformJobStatus"] != "Completed":
        complain(f"job {job['TransformJobName']} is {job['TransformJobStatus']}: {job.get('FailureReason', '-')}")
        raise typer.Exit(1)
