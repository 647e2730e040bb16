"""The ``serving`` command. Nothing else imports this, typer or rich; each command imports what it needs when it runs.

Answers go to standard output, everything said about them to standard error. Exit status: 0 done, 1 the server or the
artifact said no, 2 the command itself cannot be carried out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving import __version__
from serving.config import SETTINGS, Settings, load_settings, masked
from serving.errors import ConfigError, ServiceUnavailable, ServingError
from serving.terminal import bar, busy, complain, print_json, print_table, tell

if TYPE_CHECKING:
    from serving.client import Answer, Server
    from serving.declared import Body, Document

program = typer.Typer(
    name="serving",
    help="An open, self-hosted inference server that speaks SageMaker.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_HELP = {row.name: row.help for row in SETTINGS}

SettingsFile = Annotated[str | None, typer.Option("--settings", metavar="FILE", help=_HELP["settings_file"])]
AllowCode = Annotated[bool | None, typer.Option("--allow-code/--no-allow-code", help=_HELP["allow_code"])]
Url = Annotated[
    str | None, typer.Option(metavar="URL", help="The server; default: where the settings say one listens.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON, for another program.")]


def main() -> None:
    """Run the command line. Errors of ours are one line, never a traceback."""
    try:
        program(prog_name="serving")
    except ServingError as error:
        from serving.client import Refused

        complain(error.message)
        sys.exit(1 if isinstance(error, ServiceUnavailable | Refused) else 2)


# --- up -------------------------------------------------------------------------------------------------------------


@program.command()
def up(
    models: Annotated[
        Path | None,
        typer.Argument(help="A model (served as endpoint 'default'), or a folder of models (multi-model 'default')."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Endpoints, declared as SageMaker bodies.")
    ] = None,
    host: Annotated[str | None, typer.Option(help=_HELP["host"])] = None,
    port: Annotated[str | None, typer.Option(metavar="PORT", help=_HELP["port"])] = None,
    data_dir: Annotated[str | None, typer.Option(metavar="FOLDER", help=_HELP["data_dir"])] = None,
    allow_code: AllowCode = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes for MODELS.")] = 1,
    fronts: Annotated[str | None, typer.Option(metavar="N", help=_HELP["fronts"])] = None,
    settings_file: SettingsFile = None,
) -> None:
    """Start the server and serve until it is told to stop."""
    began = time.monotonic()
    settings = load_settings(
        {
            "host": host,
            "port": port,
            "data_dir": data_dir,
            "allow_code": allow_code,
            "fronts": fronts,
            "settings_file": settings_file,
        }
    )
    document = _declared(models, config, workers, settings)

    def on_ready(url: str, names: list[str]) -> None:
        print(_welcome(url, document, names, settings, time.monotonic() - began), flush=True)

    from serving.app import run

    raise typer.Exit(run(settings, document, on_ready))


def _declared(models: Path | None, config: Path | None, workers: int, settings: Settings) -> Document:
    """What the command line asks to serve; nothing = what the data folder has."""
    from serving.declared import Document, containers, document_from_path, load_document

    declared = load_document(config) if config else Document()
    if models is None:
        if workers != 1:
            raise ConfigError("--workers is for MODELS; a declared endpoint has InitialInstanceCount.")
        return declared
    from serving.checking import is_artifact, refuse_code

    own = document_from_path(models, is_artifact, workers, settings.default_endpoint)
    if containers(own.models[0])[0]["Mode"] == "SingleModel":
        refuse_code(models, settings.allow_code)
    name = settings.default_endpoint
    if any(body[kind.name].lower() == name.lower() for kind, body in declared.bodies()):
        raise ConfigError(
            f"MODELS would be model, config and endpoint {name!r}, but {config} declares one of that name."
        )
    return own + declared


def _welcome(url: str, document: Document, names: list[str], settings: Settings, seconds: float) -> str:
    """What is served, and a call to begin with. ``names``: all endpoints there are, declared or not."""
    from serving.declared import shown

    lines = [f"serving {__version__} is ready at {url} ({seconds:.1f} s)"]
    declared = {name: f"  endpoint {name}  {text}" for name, text, _ in shown(document)}
    lines += declared.values()
    lines += [f"  endpoint {name}  (in the store)" for name in names if name not in declared]
    if document.endpoints:
        name, _, many = next(shown(document))
        header = " -H 'X-Amzn-SageMaker-Target-Model: MODEL'" if many else ""
        user = " -u AccessKeyId:SecretAccessKey" if settings.access_keys else ""
        lines.append(
            f"  try: curl{user} {url}/endpoints/{name}/invocations -H 'Content-Type: text/csv'{header} "
            "--data-binary @rows.csv"
        )
    elif not names:
        lines.append(
            "  no endpoints declared: name a model, serving up MODEL, or a file of them, serving up --config FILE"
        )
    return "\n".join(lines)


# --- invoke ---------------------------------------------------------------------------------------------------------


@program.command()
def invoke(
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint.")],
    body: Annotated[str | None, typer.Option(help="The request body: text, @FILE, or - for standard input.")] = None,
    content_type: Annotated[str | None, typer.Option(help="Media type of the body; guessed when not given.")] = None,
    accept: Annotated[str | None, typer.Option(help="Media type wanted in return.")] = None,
    target_model: Annotated[str | None, typer.Option(help="Model of a multi-model endpoint.")] = None,
    target_variant: Annotated[str | None, typer.Option(help="Variant to ask, whatever the weights.")] = None,
    later: Annotated[bool, typer.Option("--async", help="Have it answered later: the call's id is printed.")] = False,
    location: Annotated[
        str | None, typer.Option("--input", metavar="URL", help="With --async: the s3:// object that is the body.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="With --async: wait, and print the answer.")] = False,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Call an endpoint: the answer on standard output, status and timing on standard error."""
    from serving.client import answer_fields, guessed_type, invocation_path
    from serving.later import check_input

    check_input(body, location, later)
    if wait and not later:
        raise ConfigError("--wait is for --async: a plain call is waited for anyway.")
    server = _server(url, settings_file)
    data = _body(body) if body is not None else b""
    headers = {
        "Content-Type": content_type or (guessed_type(body, data) if body is not None else None),
        "Accept": accept,
        "X-Amzn-SageMaker-Target-Model": target_model,
        "X-Amzn-SageMaker-Target-Variant": target_variant,
    }
    given = {name: value for name, value in headers.items() if value}
    if later:
        _invoke_later(server, endpoint, data, location or "", given, wait, as_json)
        return
    given["X-Serving-Timing"] = "1"
    began = time.perf_counter()
    answer = server.send("POST", invocation_path(endpoint), "invoke", data, given, (endpoint, target_model or ""))
    elapsed = time.perf_counter() - began
    if as_json:
        print_json(answer_fields(answer, elapsed))
    else:
        _print_answer(answer, elapsed)
    raise typer.Exit(0 if answer.ok else 1)


def _invoke_later(
    server: Server, endpoint: str, data: bytes, location: str, headers: dict[str, str], wait: bool, as_json: bool
) -> None:
    from serving.later import follow, send, sent

    began = time.perf_counter()
    answer = send(server, endpoint, data, location, headers)
    if not answer.ok:
        complain(answer.complaint)
        raise typer.Exit(1)
    accepted = sent(answer)
    if wait:
        _print_output(server, endpoint, follow(server, endpoint, accepted["Id"], tell), began, as_json)
        return
    if as_json:
        print_json(accepted)
        return
    print(accepted["Id"])
    tell(f"{answer.status} {answer.reason}  output {accepted.get('OutputLocation', '-')}")


def _print_output(server: Server, endpoint: str, call: Body, began: float, as_json: bool) -> None:
    """The answer of an asynchronous call that has ended."""
    from serving.client import answer_fields
    from serving.later import output

    answer = output(server, endpoint, call["Id"])
    elapsed = time.perf_counter() - began
    if as_json:
        fields = answer_fields(answer, elapsed)
        print_json({**call, **{name: value for name, value in fields.items() if name.startswith("Body")}})
    else:
        _print_answer(answer, elapsed)
    raise typer.Exit(0 if answer.ok else 1)


# --- jobs -----------------------------------------------------------------------------------------------------------


@program.command()
def jobs(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")],
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One of its asynchronous calls.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Of ID: wait until it has ended.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Of ID: cancel it.")] = False,
    output: Annotated[bool, typer.Option("--output", help="Of ID: print the answer.")] = False,
    status: Annotated[str, typer.Option(help="Of the list: only calls of this status.")] = "",
    most: Annotated[int, typer.Option("--max", min=1, max=100_000, help="Of the list: so many, newest first.")] = 100,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """List an endpoint's asynchronous calls; show, follow or cancel one, or print its answer."""
    from serving import later

    if id is None and (wait or cancel or output):
        raise ConfigError("--wait, --cancel and --output are for one call: name its ID.")
    server = _server(url, settings_file)
    if id is None:
        found = later.listed(server, endpoint, status, most)
        if as_json:
            print_json({"AsyncInvocations": found})
        else:
            print_table(later.HEADINGS, later.rows(found))
        return
    began = time.perf_counter()
    call = later.cancel(server, endpoint, id) if cancel else later.look(server, endpoint, id)
    if wait:
        call = later.follow(server, endpoint, id, tell)
    if output:
        _print_output(server, endpoint, call, began, as_json)
    if as_json:
        print_json(call)
    else:
        for name, text in later.facts(call):
            print(f"{name:<17}{text}")
    raise typer.Exit(1 if wait and call["Status"] != "Completed" else 0)


# --- transform ------------------------------------------------------------------------------------------------------


@program.command()
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
    server = _server(url, settings_file)
    begun = transforming.begin(server, wish, tell)
    if wait:
        tell(f"job {begun}")
        _print_job(_followed(server, begun), as_json)
    elif as_json:
        print_json(transforming.look(server, begun))
    else:
        print(begun)


@program.command()
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
    server = _server(url, settings_file)
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


def _server(url: str | None, settings_file: str | None) -> Server:
    from serving.client import Server, base_url

    settings = load_settings({"settings_file": settings_file})
    return Server(url or base_url(settings), settings)


def _body(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise ConfigError(f"Cannot read {text[1:]}: {error.strerror}.") from None


def _print_answer(answer: Answer, elapsed: float) -> None:
    if not answer.ok:
        complain(answer.complaint)
        return
    sys.stdout.buffer.write(answer.body)
    if sys.stdout.isatty() and not answer.body.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.flush()
    variant = answer.headers.get("x-amzn-invoked-production-variant", "-")
    receipt = answer.headers.get("x-serving-timing", "")
    told = f"  µs: {receipt}" if receipt else ""
    print(f"{answer.status} {answer.reason}  variant {variant}  {elapsed * 1e3:.1f} ms{told}", file=sys.stderr)


# --- endpoints ------------------------------------------------------------------------------------------------------

Name = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the endpoints have settled.")]


@program.command()
def deploy(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|ARTIFACT",
            help="A file of endpoints; or a model or folder of models that the server can read (path, file://, s3://).",
        ),
    ],
    endpoint: Annotated[str | None, typer.Option(help="Endpoint of the artifact; default: 'default'.")] = None,
    instances: Annotated[int, typer.Option(min=1, max=256, help="Workers of the artifact's endpoint.")] = 1,
    wait: Wait = True,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a running server have what a file declares, or serve an artifact: only what differs is changed."""
    from serving import remote

    settings = load_settings({"settings_file": settings_file})
    server = _server(url, settings_file)
    is_artifact = remote.is_artifact_at(what)
    if not is_artifact and (endpoint or instances != 1):
        raise ConfigError("--endpoint and --instances are for an ARTIFACT; a file says them itself.")
    document = remote.document_at(what, endpoint or settings.default_endpoint, instances)
    steps = remote.deploy(server, document, tell, settings.load_timeout_seconds, again=is_artifact)
    if not steps:
        tell("nothing differs")
    names = [body["EndpointName"] for body in document.endpoints]
    _after(remote.look(server, names, settings.load_timeout_seconds if wait else 0.0), as_json)


def _after(endpoints: Sequence[Body], as_json: bool) -> None:
    """What became of endpoints that were changed; exit status 1 when one has failed."""
    from serving import remote

    if as_json:
        print_json({"Endpoints": endpoints})
    else:
        print_table(remote.HEADINGS, [row for one in endpoints for row in remote.rows(one)])
    bad = [one for one in endpoints if one.get("FailureReason")]
    for one in bad:
        complain(f"{one['EndpointName']} is {one['EndpointStatus']}: {one['FailureReason']}")
    raise typer.Exit(1 if bad else 0)


@program.command()
def endpoints(url: Url = None, settings_file: SettingsFile = None, as_json: AsJson = False) -> None:
    """List a running server's endpoints, their variants, weights and workers."""
    from serving import remote

    found = remote.endpoints(_server(url, settings_file))
    if as_json:
        print_json({"Endpoints": found})
    else:
        print_table(remote.HEADINGS, [row for one in found for row in remote.rows(one)])


@program.command()
def describe(endpoint: Name, url: Url = None, settings_file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Say all there is to say of an endpoint: its state, and what each variant serves."""
    from serving import remote

    server = _server(url, settings_file)
    found = server.call("DescribeEndpoint", {"EndpointName": endpoint})
    if as_json:
        print_json(found)
        return
    for name, text in remote.facts(found):
        print(f"{name:<10}{text}")
    made_of = remote.artifacts(server, found)
    cells = [remote.variant_cells(one) for one in found.get("ProductionVariants", ())]
    rows = [(*one, *made_of.get(one[0], ("-", "-"))) for one in cells]
    if rows:
        print()
        print_table(("VARIANT", "WEIGHT", "WORKERS", "MODEL", "ARTIFACT"), rows)


@program.command()
def weights(
    endpoint: Name,
    changes: Annotated[
        list[str],
        typer.Argument(metavar="VARIANT[=WEIGHT][:WORKERS]...", help="Such as blue=0.9, or green=0.1:2, or blue:4."),
    ],
    wait: Wait = True,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Change variants' shares of the traffic and their workers, without a failed call."""
    from serving import remote

    wanted = remote.changes(changes)
    settings = load_settings({"settings_file": settings_file})
    server = _server(url, settings_file)
    server.call("UpdateEndpointWeightsAndCapacities", {"EndpointName": endpoint, "DesiredWeightsAndCapacities": wanted})
    _after(remote.look(server, [endpoint], settings.load_timeout_seconds if wait else 0.0), as_json)


@program.command()
def delete(
    endpoint: Name,
    everything: Annotated[bool, typer.Option("--all", help="Its endpoint config and models as well.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the endpoint is gone.")] = True,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Delete an endpoint: its last calls are finished, then its workers go."""
    from serving import remote

    settings = load_settings({"settings_file": settings_file})
    server = _server(url, settings_file)
    deleted = remote.delete(server, endpoint, everything, tell)
    if wait and not remote.gone(server, endpoint, settings.load_timeout_seconds):
        raise ServiceUnavailable(f"Endpoint {endpoint} is still being deleted.")
    if as_json:
        print_json({"Deleted": deleted})


# --- check ----------------------------------------------------------------------------------------------------------


@program.command()
def check(
    file_or_artifact: Annotated[Path, typer.Argument(help="A model, a folder of models, or a file of endpoints.")],
    allow_code: AllowCode = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Dry run: what is it, would it load, what does it cost in memory? Models are loaded in a process of their own."""
    from dataclasses import asdict

    from serving.checking import SOME, subjects, told, tried

    settings = load_settings({"allow_code": allow_code, "settings_file": settings_file})
    failed, found = 0, []
    for subject in subjects(file_or_artifact, settings):
        with busy(f"loading {subject.path.name} ..."):
            trial = tried(subject, settings)
        failed += bool(trial.error)
        found.append({"endpoint": subject.endpoint, "variant": subject.variant, **asdict(trial)})
        if not as_json:
            print(told(trial))
    if as_json:
        print_json({"loads": not failed, "models": found})
    else:
        print(f"{len(found)} tried, {failed} would not load; of a folder the first {SOME} are.", file=sys.stderr)
    raise typer.Exit(1 if failed else 0)


# --- load -----------------------------------------------------------------------------------------------------------

#: Load test scenario -> its option that names the endpoint.
_SCENARIOS = {
    "one_model": "--endpoint",
    "big_payload": "--endpoint",
    "ab_split": "--ab-endpoint",
    "multi_model_zipf": "--zoo-endpoint",
    "mixed": "--endpoint",
}


@program.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def load(
    context: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint.")],
    scenario: Annotated[str, typer.Option(help=f"What to do: {', '.join(_SCENARIOS)}.")] = "one_model",
    users: Annotated[int, typer.Option(min=1, max=10_000, help="Callers at once.")] = 16,
    seconds: Annotated[int, typer.Option(min=1, max=86_400, help="Length of the run.")] = 30,
    url: Url = None,
    settings_file: SettingsFile = None,
) -> None:
    """Put an endpoint under load with Locust and report; other options go to the scenario (see loadtests/)."""
    import subprocess
    from importlib.util import find_spec

    from serving.client import base_url
    from serving.config import did_you_mean

    if scenario not in _SCENARIOS:
        raise ConfigError(f"There is no scenario {scenario!r}{did_you_mean(scenario, list(_SCENARIOS))}.")
    if find_spec("locust") is None:
        raise ConfigError("Load tests need Locust: pip install 'serving[load]'.")
    root = Path(__file__).resolve().parent.parent
    if not (root / "loadtests" / "__main__.py").exists():
        raise ConfigError("The load tests are part of the source checkout; run serving from a clone of the project.")
    settings = load_settings({"settings_file": settings_file})
    command = [sys.executable, "-m", "loadtests", scenario, "--host", url or base_url(settings)]
    command += ["--users", str(users), "--seconds", str(seconds), _SCENARIOS[scenario], endpoint, *context.args]
    try:
        done = subprocess.run(command, cwd=root, timeout=seconds + 300, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"The load test did not end {300} seconds after its time.") from None
    raise typer.Exit(1 if done.returncode else 0)


# --- settings, version ----------------------------------------------------------------------------------------------


@program.command()
def settings(
    settings_file: SettingsFile = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table of the README.")] = False,
    as_json: AsJson = False,
) -> None:
    """Every setting: its variable, its value now, its default and what it means."""
    if markdown:
        print(settings_table())
        return
    now = load_settings({"settings_file": settings_file})
    values = {row.name: _value_text(getattr(now, row.name)) for row in SETTINGS}
    if as_json:
        fields = [(row, values[row.name]) for row in SETTINGS]
        print_json(
            [
                {
                    "variable": row.env,
                    "key": row.key,
                    "value": value,
                    "default": row.default_text,
                    "expected": row.kind.expected,
                    "help": row.help,
                }
                for row, value in fields
            ]
        )
        return
    rows = [(row.env, values[row.name], row.default_text, row.help) for row in SETTINGS]
    print_table(("VARIABLE", "VALUE", "DEFAULT", "MEANING"), rows)


def _value_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else masked(str(value))


def settings_table() -> str:
    """The README's table of settings, in Markdown."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for row in SETTINGS:
        default = f"`{row.default_text}`" if row.default_text else ""
        lines.append(f"| `{row.env}` | {default} | {row.help} |")
    return "\n".join(lines)


@program.command()
def version(as_json: AsJson = False) -> None:
    """The version of the server, and of the frameworks installed beside it."""
    if not as_json:
        print(f"serving {__version__}")
        return
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of
    from platform import python_version

    found: dict[str, str] = {"serving": __version__, "python": python_version()}
    for name in ("numpy", "onnxruntime", "xgboost-cpu", "xgboost", "torch", "scikit-learn", "lightgbm"):
        try:
            found[name] = version_of(name)
        except PackageNotFoundError:
            continue
    print_json(found)
