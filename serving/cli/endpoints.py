"""``serving deploy``, ``endpoints``, ``describe``, ``weights``, ``delete``: the control API, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.options import AsJson, SettingsFile, Url, server_at
from serving.config import load_settings
from serving.errors import ConfigError, ServiceUnavailable
from serving.terminal import complain, print_json, print_table, tell

if TYPE_CHECKING:
    from serving.declared import Body


Name = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the endpoints have settled.")]


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
    canary: Annotated[str | None, typer.Option(metavar="SIZE", help="First a part of the calls: 10%, or 2.")] = None,
    linear: Annotated[str | None, typer.Option(metavar="SIZE", help="In equal steps of this size.")] = None,
    rolling: Annotated[str | None, typer.Option(metavar="SIZE", help="Worker by worker, in batches.")] = None,
    bake: Annotated[int, typer.Option(min=0, max=3600, help="Seconds to watch each of these steps.")] = 60,
    rollback_on: Annotated[list[str] | None, typer.Option(metavar="ALARM", help="Go back when this is raised.")] = None,
    wait: Wait = True,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a running server have what a file declares, or serve an artifact: only what differs is changed."""
    from dataclasses import replace

    from serving import guardrails, remote

    settings = load_settings({"settings_file": settings_file})
    server = server_at(url, settings_file)
    is_artifact = remote.is_artifact_at(what)
    if not is_artifact and (endpoint or instances != 1):
        raise ConfigError("--endpoint and --instances are for an ARTIFACT; a file says them itself.")
    document = remote.document_at(what, endpoint or settings.default_endpoint, instances)
    sizes = {"canary": canary, "linear": linear, "rolling": rolling}
    guarded = guardrails.deployment_config(sizes, bake, rollback_on or ())
    if guarded:
        bodies = tuple({**body, "DeploymentConfig": guarded} for body in document.endpoints)
        document = replace(document, endpoints=bodies)
    steps = remote.deploy(server, document, tell, settings.load_timeout_seconds, again=is_artifact)
    if not steps:
        tell("nothing differs")
    names = [body["EndpointName"] for body in document.endpoints]
    if wait and any("DeploymentConfig" in body for body in document.endpoints):  # in the file, or just now
        _after(guardrails.follow(server, names, guardrails.LONGEST_UPDATE, tell), as_json)
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


def endpoints(url: Url = None, settings_file: SettingsFile = None, as_json: AsJson = False) -> None:
    """List a running server's endpoints, their variants, weights and workers."""
    from serving import remote

    found = remote.endpoints(server_at(url, settings_file))
    if as_json:
        print_json({"Endpoints": found})
    else:
        print_table(remote.HEADINGS, [row for one in found for row in remote.rows(one)])


def describe(endpoint: Name, url: Url = None, settings_file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Say all there is to say of an endpoint: its state, and what each variant serves."""
    from serving import remote

    server = server_at(url, settings_file)
    found = server.call("DescribeEndpoint", {"EndpointName": endpoint})
    if as_json:
        print_json(found)
        return
    for name, text in remote.facts(found):
        print(f"{name:<10}{text}")
    made_of = remote.artifacts(server, found)
    rows = [(*one, *made_of.get(one[0], ("-", "-"))) for one in remote.running_variants(found)]
    if rows:
        print()
        print_table(("VARIANT", "WEIGHT", "WORKERS", "MODEL", "ARTIFACT"), rows)


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
    server = server_at(url, settings_file)
    server.call("UpdateEndpointWeightsAndCapacities", {"EndpointName": endpoint, "DesiredWeightsAndCapacities": wanted})
    _after(remote.look(server, [endpoint], settings.load_timeout_seconds if wait else 0.0), as_json)


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
    server = server_at(url, settings_file)
    deleted = remote.delete(server, endpoint, everything, tell)
    if wait and not remote.gone(server, endpoint, settings.load_timeout_seconds):
        raise ServiceUnavailable(f"Endpoint {endpoint} is still being deleted.")
    if as_json:
        print_json({"Deleted": deleted})
