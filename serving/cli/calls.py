"""``serving invoke`` and ``serving jobs``: calls, answered at once or later."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.options import AsJson, SettingsFile, Url, server_at
from serving.errors import ConfigError
from serving.terminal import complain, print_json, print_table, tell

if TYPE_CHECKING:
    from serving.client import Answer, Server
    from serving.declared import Body


def invoke(
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint.")],
    body: Annotated[str | None, typer.Option(help="The request body: text, @FILE, or - for standard input.")] = None,
    content_type: Annotated[str | None, typer.Option(help="Media type of the body; guessed when not given.")] = None,
    accept: Annotated[str | None, typer.Option(help="Media type wanted in return.")] = None,
    target_model: Annotated[str | None, typer.Option(help="Model of a multi-model endpoint.")] = None,
    target_variant: Annotated[str | None, typer.Option(help="Variant to ask, whatever the weights.")] = None,
    explanations: Annotated[
        str | None,
        typer.Option("--enable-explanations", metavar="JMESPATH", help="Explain the records of which this is true."),
    ] = None,
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
    if explanations and later:
        raise ConfigError("--enable-explanations is for calls that are answered at once.")
    server = server_at(url, settings_file)
    data = _body(body) if body is not None else b""
    headers = {
        "Content-Type": content_type or (guessed_type(body, data) if body is not None else None),
        "Accept": accept,
        "X-Amzn-SageMaker-Target-Model": target_model,
        "X-Amzn-SageMaker-Target-Variant": target_variant,
        "X-Amzn-SageMaker-Enable-Explanations": explanations,
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
    server = server_at(url, settings_file)
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
