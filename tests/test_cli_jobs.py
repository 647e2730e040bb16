"""Calls that are answered later, from the command line: sent, followed, listed, cancelled, fetched."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.later import OUTPUT, declared, order
from tests.raw import gate, open_gate
from tests.server import Server, serve
from tests.test_cli import serving

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with an asynchronous endpoint and a plain one."""
    folder = tmp_path_factory.mktemp("later")
    with serve(folder, "--allow-code", "--config", declared(folder)) as running:
        yield running


def said(*arguments: str, server: Server, status: int = 0) -> str:
    """What a command prints on standard output; it ends with this status."""
    done = serving(*arguments, "--url", server.url)
    assert status == done.returncode, done.stderr.decode()
    return done.stdout.decode()


def test_a_call_is_sent_and_followed_to_its_answer(server: Server, tmp_path: Path) -> None:
    """Its id first; how it stands; its answer at the end."""
    with gate(tmp_path / "gate"):
        body = order(hold=str(tmp_path / "gate"), say="at last").decode()
        id = said("invoke", "later", "--body", body, "--async", server=server).strip()
        assert ID.fullmatch(id)
        held = open_gate(tmp_path / "gate")
        assert re.search(r"Status +InProgress", said("jobs", "later", id, server=server))
        os.close(held)
    assert re.search(r"Status +Completed", said("jobs", "later", id, "--wait", server=server))
    assert "at last" == said("jobs", "later", id, "--output", server=server)


@pytest.mark.parametrize("endpoint", ["later", "plain"])
def test_a_call_is_waited_for(server: Server, endpoint: str) -> None:
    """As if it had been answered at once, whatever the endpoint is; a failure ends with status 1."""
    arguments = ("invoke", endpoint, "--async", "--wait", "--body")
    found = json.loads(said(*arguments, '{"say": "now"}', "--json", server=server))
    assert ("Completed", "now") == (found["Status"], found["Body"])
    assert "" == said(*arguments, '{"raise": 500, "text": "no"}', server=server, status=1)


def test_the_input_may_be_an_object(server: Server) -> None:
    """And is read when the call is run."""
    path = server.data_dir / "s3" / "inputs" / "one"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(order())
    arguments = ("--input", "s3://inputs/one", "--content-type", "a/b", "--accept", "c/d")
    sent = json.loads(said("invoke", "later", "--async", *arguments, "--json", server=server))
    assert sent["OutputLocation"].startswith(OUTPUT)
    assert "Completed" == json.loads(said("jobs", "later", sent["Id"], "--wait", "--json", server=server))["Status"]
    answer = json.loads(said("jobs", "later", sent["Id"], "--output", server=server))
    assert ("a/b", "c/d") == (answer["content_type"], answer["accept"])


def test_calls_are_listed_and_cancelled(server: Server, tmp_path: Path) -> None:
    """Newest first, by status; one that was cancelled has no answer."""
    with gate(tmp_path / "gate"):
        body = order(hold=str(tmp_path / "gate")).decode()
        first, second = (said("invoke", "later", "--body", body, "--async", server=server).strip() for _ in range(2))
        held = open_gate(tmp_path / "gate")
        assert "Cancelled" == json.loads(said("jobs", "later", second, "--cancel", "--json", server=server))["Status"]
        os.close(held)
    listed = [line.split("\t") for line in said("jobs", "later", "--max", "2", server=server).splitlines()]
    assert ["ID", "STATUS", "CREATED", "SECONDS", "ATTEMPTS", "INFERENCE ID"] == listed[0]
    assert [second, first] == [row[0] for row in listed[1:]]
    found = json.loads(said("jobs", "later", "--status", "Cancelled", "--json", server=server))["AsyncInvocations"]
    assert [second] == [call["Id"] for call in found]
    assert "" == said("jobs", "later", second, "--wait", "--output", server=server, status=1)


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["invoke", "later"], 2, "Give the call its --body"),
        (["invoke", "later", "--input", "s3://b/k"], 2, "--input is for --async"),
        (["invoke", "later", "--body", "1", "--wait"], 2, "--wait is for --async"),
        (["jobs", "later", "--wait"], 2, "name its ID"),
        (["jobs", "later", "none"], 1, "has no asynchronous call none"),
        (["invoke", "none", "--async", "--body", "1"], 1, "Endpoint none of account"),
        (["invoke", "plain", "--async", "--input", "s3://b/k"], 1, "is not asynchronous"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(server: Server, arguments: list[str], status: int, text: str) -> None:
    """Status 2 for the command, 1 for what the server refuses."""
    done = serving(*arguments, "--url", server.url)
    assert (status, 1, True) == (done.returncode, done.stderr.count(b"\n"), text in done.stderr.decode()), done.stderr
    assert b"" == done.stdout
