"""The README tells the truth: its commands and scripts exist and run, its tables of settings and of operations are the
server's own.

Fenced blocks are told apart by what stands behind their opening fence:

* ``bash``: commands are looked up (``serving COMMAND --option``), not run;
* ``bash run``: run too, all of them in order, as one session in an empty folder that has the project's ``models`` and
  ``loadtests``. Port 8080 becomes a free one. A line that starts a server in the background (``serving up ... &``) is
  waited for until the server is ready; it is stopped at the end;
* ``python run``: run at its place in that session;
* ``LANGUAGE file NAME``: written into that folder at its place in the session;
* ``bash test``: the test command, which ``.ci/run`` runs word for word.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main

from docs import operations
from serving import declared, testing
from serving.api.control_actions import OPERATIONS
from serving.cli import program, settings_table
from serving.config import PREFIX, SETTINGS
from tests.toys import ROW, write_sum_model

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = typer.main.get_command(program).commands  # type: ignore[attr-defined]  # a group, as it has commands

#: Variables the README may name that are no settings of the server: that of a transform job's environment.
OTHER_VARIABLES = frozenset({"SERVING_TRANSFORM_MAX_BAD_RECORDS"})


class Block(NamedTuple):
    """A fenced block: what stands behind the fence, and the text inside."""

    kind: str
    text: str


def blocks(markdown: str) -> list[Block]:
    """The fenced blocks, in order."""
    return [Block(*found) for found in re.findall(r"^```([^\n]*)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)]


def commands(block: str) -> Iterator[list[str]]:
    """Each ``serving ...`` command of a shell block, as words; comments and continued lines as a shell has them."""
    lexer = shlex.shlex(block.replace("\\\n", " ").replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    for word in [*without_comments(lexer), ";"]:
        if re.fullmatch(r"[;&|()<>]+", word):
            yield from ([words[1:]] if words[:1] == ["serving"] else [])
            words = []
            continue
        words.append(Path(word).name if not words else word)
        if words[1:] == ["-m", "serving"] and words[0].startswith("python"):
            words = ["serving"]
        if re.fullmatch(r"\w+=.*", words[0]):
            words = []  # a variable set for the command that follows


def without_comments(words: Iterator[str]) -> Iterator[str]:
    """What a shell reads: nothing from ``#`` to the end of the line."""
    silent = False
    for word in words:
        silent = (silent or word.startswith("#")) and word != ";"
        if not silent:
            yield word


BLOCKS = blocks(README)
SHELL = [block for block in BLOCKS if block.kind.split(" ")[0] in ("bash", "sh", "console")]
WRITTEN = [words for block in SHELL for words in commands(block.text)]


def faults(words: list[str]) -> Iterator[str]:
    """What is wrong with a command's words, by the command line's own definition."""
    if not words or words[0] == "--help":
        return
    if words[0] not in COMMANDS:
        yield f"there is no command {words[0]!r}"
        return
    options = {
        name
        for parameter in COMMANDS[words[0]].params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }
    for word in words[1:]:
        name = word.partition("=")[0]
        if name.startswith("--") and name not in options | {"--help"}:
            yield f"serving {words[0]} has no option {name}"


@pytest.mark.parametrize("words", WRITTEN, ids=" ".join)
def test_a_command_of_the_readme_exists(words: list[str]) -> None:
    """With the options it is written with."""
    assert [] == list(faults(words))


def test_every_command_is_in_the_readme() -> None:
    """An undocumented command fails the build."""
    assert set() == set(COMMANDS) - {words[0] for words in WRITTEN if words}


def test_the_readme_has_the_table_of_settings() -> None:
    """Row by row as ``serving settings --markdown`` prints it: every setting, nothing else."""
    written = [line for line in README.splitlines() if line.startswith(f"| `{PREFIX}")]
    assert settings_table().splitlines()[2:] == written


def test_every_variable_in_the_readme_is_a_setting() -> None:
    """In prose and examples too."""
    known = {row.env for row in SETTINGS} | OTHER_VARIABLES
    assert set() == set(re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]", README)) - known


def test_there_is_one_test_command() -> None:
    """The one that ``.ci/run`` reads off the README."""
    assert 1 == sum(block.kind == "bash test" for block in BLOCKS)
    assert "```bash test" in (ROOT / ".ci" / "run").read_text()


# --- what is offered, what is not -----------------------------------------------------------------------------------

#: What the runtime API offers, beside the control API's table.
RUNTIME = {"InvokeEndpoint", "InvokeEndpointWithResponseStream", "InvokeEndpointAsync"}


def section(heading: str) -> str:
    """The text under a heading of the second level."""
    return next(part for part in README.split("\n## ") if part.startswith(f"{heading}\n"))


def quoted(text: str) -> set[str]:
    """AWS's names in it: those in backticks that begin with a capital letter and have small ones."""
    return set(re.findall(r"`([A-Z][a-z]\w+)`", text))


def test_the_readme_names_every_operation_and_no_other() -> None:
    """By the server's own tables."""
    rows = [line for line in section("Deploy as on SageMaker").splitlines() if line.startswith("| ")]
    assert {name for actions in OPERATIONS.values() for name in actions} | RUNTIME == quoted("\n".join(rows))


def test_the_page_of_operations_is_what_its_command_prints() -> None:
    """``python -m docs.operations > docs/operations.md``."""
    assert operations.page() == (ROOT / "docs" / "operations.md").read_text()


def test_what_has_no_effect_is_owned_up_to() -> None:
    """Every field that a declared file is told of."""
    assert set() == set(declared._NO_EFFECT_YET) - quoted(section("What it does not do yet"))


def test_every_link_leads_somewhere() -> None:
    """To a file of the project, or to a heading of this one."""
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert [] == [link for link in links if link not in anchors and not (ROOT / link).exists()]


# --- running it -----------------------------------------------------------------------------------------------------

PRELUDE = """
cleanup() { jobs -p | while read -r job; do kill "$job" 2>/dev/null || true; done; wait; }
trap cleanup EXIT
"""

#: Returns when the server answers /readyz, or fails when its process has gone or a minute is over.
WAIT = """
import http.client, os, sys, threading, time
port, process, pause, end = int(sys.argv[1]), int(sys.argv[2]), threading.Event(), time.monotonic() + 60
while time.monotonic() < end:
    os.kill(process, 0)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        if connection.getresponse().status == 200:
            sys.exit(0)
    except OSError:
        pass
    finally:
        connection.close()
    pause.wait(0.02)
sys.exit("the server did not become ready within a minute")
"""


END = "END_OF_THE_BLOCK"


def shell(block: Block) -> str:
    """A block as lines of a shell session."""
    name = block.kind.partition(" file ")[2]
    if name:
        return f"mkdir -p {Path(name).parent}\ncat > {name} <<'{END}'\n{block.text}{END}\n"
    if block.kind == "python run":
        return f"python - <<'{END}'\n{block.text}{END}\n"
    return block.text.replace("\\\n", " ")


def is_run(block: Block) -> bool:
    """Whether a block belongs to the session."""
    return block.kind in ("bash run", "python run") or " file " in block.kind


def session(texts: list[str], port: int) -> str:
    """One script of all texts: each line is echoed before it runs, and the first that fails ends it."""
    lines = "\n".join(texts).replace("8080", str(port)).splitlines()
    script = ["set -euo pipefail", PRELUDE, "set -v"]
    for line in lines:
        script.append(line)
        if re.search(r"\bserving\s+up\b.*&\s*(#.*)?$", line):
            script.append(f"python wait.py {port} $!")
    return "\n".join([*script, ""])


def free_port() -> int:
    """A port that nobody has, below those that the system gives to whoever connects meanwhile."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", random.randrange(1024, max(lowest, 10_000))))
            port: int = tried.getsockname()[1]
            return port


def run(texts: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run shell blocks as a reader would, who has installed the project: ``serving`` and ``python`` are on the path."""
    port = free_port()
    shims = folder / ".bin"
    shims.mkdir()
    for name, arguments in (("serving", "-m serving"), ("python", ""), ("python3", "")):
        (shims / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (shims / name).chmod(0o755)
    for name in ("models", "loadtests"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "wait.py").write_text(WAIT)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "AWS_"))}
    own = {"PATH": f"{shims}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), f"{PREFIX}PORT": str(port)}
    # Standard error joins standard output: the echoed lines and what they print stay in order.
    return subprocess.run(
        ["bash", "-c", session(texts, port)],
        cwd=folder,
        env=inherited | own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.timeout(320)
def test_the_readmes_commands_and_scripts_run(tmp_path: Path) -> None:
    """All blocks that are to be run, in order; what they print is what the text says."""
    done = run([shell(block) for block in BLOCKS if is_run(block)], tmp_path)
    assert 0 == done.returncode, done.stdout
    told = re.findall(r"^(?:\w+ answers|\{'EndpointName': '\w+', '\w+': '\w+'\}) 0\.99\d+$", done.stdout, re.MULTILINE)
    assert ["linear", "xgboost", "{'EndpointName':", "{'EndpointName':"] == [line.split()[0] for line in told]
    for text in ("nothing differs\n", "key: nowhere.tar.gz", "exit status 1\n", "[b'one\\n', b'two\\n', b'three\\n']"):
        assert text in done.stdout


@pytest.mark.timeout(240)
def test_the_boto3_script_runs_against_a_fresh_server(tmp_path: Path) -> None:
    """Word for word, with two other models in the bucket; it leaves nothing behind."""
    script = next(block.text for block in BLOCKS if block.kind == "python run" and ".create_endpoint(" in block.text)
    sample = tmp_path / "models/artifacts/cards/breast-cancer-xgboost/request.csv"
    sample.parent.mkdir(parents=True)
    sample.write_text(ROW)
    with testing.server(set_environment=False) as server:
        for name, factor in (("linear", 1.0), ("xgboost", 2.0)):
            with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as archive:
                archive.add(write_sum_model(tmp_path / f"{name}.onnx", factor), "model.onnx")
            server.put_object(f"s3://models/{name}.tar.gz", tmp_path / f"{name}.tar.gz")
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**os.environ, **server.environment},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert "" == done.stderr
        assert ["linear answers 30.0", "xgboost answers 60.0"] == done.stdout.split("\n\n")[:2]
        sagemaker = server.client("sagemaker")
        left = (sagemaker.list_endpoints(), sagemaker.list_endpoint_configs(), sagemaker.list_models())
        assert [] == [thing for kind in left for name, things in kind.items() if name.endswith("s") for thing in things]


# --- the test of these tests ----------------------------------------------------------------------------------------

SAMPLE = """
Text with ```inline``` ticks.
```bash
serving up models --port 8080 &   # comment --with option
python -m serving version && SERVING_PORT=1 .venv/bin/serving invoke e \\
    --body '1;2' | cat
echo serving is no command here
```
```python
serving = 1
```
"""


def test_commands_are_found_as_a_shell_finds_them() -> None:
    """Behind variables, paths and modules; over continued lines; not in comments, arguments or other languages."""
    (shell, other) = blocks(SAMPLE)
    expected = [["up", "models", "--port", "8080"], ["version"], ["invoke", "e", "--body", "1;2"]]
    assert (expected, "python") == (list(commands(shell.text)), other.kind)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["up", "--prot", "1"], ["serving up has no option --prot"]),
        (["fly"], ["there is no command 'fly'"]),
        (["up", "m", "--port=1"], []),
    ],
)
def test_a_wrong_command_is_found(words: list[str], expected: list[str]) -> None:
    """These tests can fail."""
    assert expected == list(faults(words))


def test_blocks_run_in_one_session_with_a_ready_server(tmp_path: Path) -> None:
    """A server started by one block answers the next, on whatever port; it is gone at the end."""
    write_sum_model(tmp_path / "sum.onnx")
    done = run(["serving up sum.onnx &\n", "curl -sf http://127.0.0.1:8080/ping\nserving endpoints --json\n"], tmp_path)
    assert 0 == done.returncode, done.stdout
    assert '{"Endpoints": [{"EndpointName": "default"' in done.stdout


def test_a_failing_line_fails_its_session(tmp_path: Path) -> None:
    """Also in the middle, also in a pipe."""
    done = run(["true\n", "serving fly | cat\necho reached\n"], tmp_path)
    assert 0 != done.returncode
    assert "\nreached" not in done.stdout
