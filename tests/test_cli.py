"""The command line, as a person or a script meets it: real processes, a real server, a real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from serving import checking
from serving.cli import program, settings_table
from serving.client import Answer, Server, base_url, healthy, timing
from serving.config import SETTINGS, Settings
from serving.errors import ConfigError
from tests.toys import COLUMNS, ROW, write_script_model, write_sum_model

ROOT = Path(__file__).resolve().parent.parent
CALM = {name: value for name, value in os.environ.items() if not name.startswith(("SERVING_", "AWS_"))}


def serving(*arguments: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "serving", *arguments]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, env=CALM | env, timeout=90, check=False)


def last_words(log: IO[str]) -> str:
    """The end of what a process has logged."""
    log.seek(0)
    return log.read()[-4000:]


@contextmanager
def server(*arguments: str, **env: str) -> Iterator[tuple[str, list[str], subprocess.Popen[str]]]:
    """A server on a free port: its URL, the lines it greets with, its process. Told to stop at the end."""
    command = [sys.executable, "-m", "serving", "up", *arguments, "--port", "0"]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, env=CALM | env) as process,
    ):
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline()]
            while lines[-1] and not lines[-1].startswith(("  try:", "  no endpoints")):
                lines.append(process.stdout.readline())
            assert lines[-1], "the server did not start: " + last_words(log)
            yield lines[0].partition(" at ")[2].split()[0], lines, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: two files, and an archive in a subfolder."""
    folder = tmp_path_factory.mktemp("models")
    model = write_sum_model(folder / "sum.onnx")
    write_sum_model(folder / "same.onnx")
    (folder / "team").mkdir()
    with tarfile.open(folder / "team" / "packed.tar.gz", "w:gz") as archive:
        archive.add(model, "model.onnx")
    return folder


@pytest.fixture(scope="module")
def url(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server of one model."""
    data = tmp_path_factory.mktemp("data")
    with server(str(models / "sum.onnx"), "--data-dir", str(data)) as (address, _, _):
        yield address


# --- up -------------------------------------------------------------------------------------------------------------


def test_up_says_where_and_what_and_stops_when_told(models: Path, tmp_path: Path) -> None:
    """URL, endpoints, a command to try; exit status 0 after SIGTERM."""
    with server(str(models / "sum.onnx"), "--workers", "2", "--data-dir", str(tmp_path)) as (address, lines, process):
        text = "".join(lines)
        assert f"is ready at {address} (" in text
        assert "endpoint default  AllTraffic: sum.onnx, 2 workers" in text
        assert f"curl {address}/endpoints/default/invocations -H 'Content-Type: text/csv'" in text
    assert 0 == process.returncode


def test_up_with_a_folder_is_a_multi_model_endpoint(models: Path, tmp_path: Path) -> None:
    """TargetModel is the path relative to the folder; the greeting shows the header."""
    with server(str(models), "--data-dir", str(tmp_path)) as (address, lines, _):
        assert "X-Amzn-SageMaker-Target-Model" in lines[-1]
        for model in ("sum.onnx", "team/packed.tar.gz"):
            call = ["invoke", "default", "--body", ROW, "--accept", "text/csv", "--url", address]
            done = serving(*call, "--target-model", model)
            assert 30.0 == float(done.stdout), done.stderr


def test_up_with_nothing_is_an_empty_server(tmp_path: Path) -> None:
    """Ready for endpoints to come; the greeting says how."""
    with server("--data-dir", str(tmp_path)) as (address, lines, _):
        assert "no endpoints declared" in lines[-1]
        assert {"Endpoints": []} == json.loads(serving("endpoints", "--json", "--url", address).stdout)


def test_up_with_declared_endpoints_beside_a_model(models: Path, tmp_path: Path) -> None:
    """Both, under their names."""
    config = tmp_path / "endpoints.yaml"
    config.write_text(
        f"""
        Models: [{{ModelName: sum, PrimaryContainer: {{ModelDataUrl: {models / "sum.onnx"}}}}}]
        EndpointConfigs:
          - EndpointConfigName: ab
            ProductionVariants:
              - {{VariantName: blue, ModelName: sum, InitialVariantWeight: 0.5}}
              - {{VariantName: green, ModelName: sum, InitialVariantWeight: 0}}
        Endpoints: [{{EndpointName: shop, EndpointConfigName: ab}}]
        """
    )
    arguments = [str(models / "sum.onnx"), "--config", str(config), "--data-dir", str(tmp_path / "data")]
    with server(*arguments) as (address, _, _):
        done = serving("invoke", "shop", "--body", ROW, "--target-variant", "green", "--json", "--url", address)
        assert "green" == json.loads(done.stdout)["InvokedProductionVariant"]
        listed = serving("endpoints", "--url", address).stdout.decode().splitlines()
        assert ["ENDPOINT", "STATUS", "VARIANT", "WEIGHT", "WORKERS"] == listed[0].split("\t")
        assert ["shop", "InService", "green", "0", "1/1"] in [line.split("\t") for line in listed]


REFUSED: list[tuple[list[str], str]] = [
    (["up", "nowhere"], "There is no file or folder 'nowhere'"),
    (["up", "README.md"], "no model this server knows"),
    (["up", "--port", "eighty"], "--port is 'eighty'; expected a whole number"),
    (["up", "--host", "0.0.0.0"], "SERVING_ACCESS_KEYS"),
    (["up", "--config", "nowhere.yaml"], "Cannot read nowhere.yaml"),
    (["up", "--settings", "nowhere.toml"], "Cannot read nowhere.toml"),
    (["up", "--workers", "2"], "--workers is for MODELS"),
    (["check", "nowhere"], "There is no file or folder 'nowhere'"),
    (["check", "README.md"], "README.md"),
    (["invoke", "e", "--body", "@nowhere.csv"], "Cannot read nowhere.csv"),
    (["invoke", "e", "--body", "1", "--url", "ftp://x"], "'ftp://x' is not a server's URL"),
    (["invoke", "e", "--body", "1", "--accept", "a\nb"], "must be printable"),
    (["load", "e", "--scenario", "one_modell"], "did you mean 'one_model'"),
]


@pytest.mark.parametrize(("arguments", "text"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_what_cannot_be_done_is_one_line(arguments: list[str], text: str) -> None:
    """On standard error, without a traceback, exit status 2."""
    done = serving(*arguments)
    assert (2, b"") == (done.returncode, done.stdout)
    error = done.stderr.decode()
    assert error.startswith("Error: ")
    assert text in error
    assert 1 == len(error.splitlines())


def test_a_wrong_variable_is_one_line() -> None:
    """Settings are checked by every command that uses them."""
    done = serving("settings", SERVING_LOG_FORMAT="xml")
    assert (2, b"Error: SERVING_LOG_FORMAT is 'xml'; expected text or json.\n") == (done.returncode, done.stderr)


def test_code_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """File, format and setting are named."""
    done = serving("up", str(write_script_model(tmp_path / "m", "")), "--port", "0")
    assert 2 == done.returncode
    assert all(word in done.stderr for word in (b"inference.py", b"script", b"--allow-code"))


def test_two_servers_do_not_share_a_data_folder(models: Path, tmp_path: Path) -> None:
    """The second says who has it."""
    with server("--data-dir", str(tmp_path)) as (_, _, process):
        done = serving("up", "--port", "0", "--data-dir", str(tmp_path))
        assert 2 == done.returncode
        assert f"process id {process.pid}" in done.stderr.decode()


# --- invoke ---------------------------------------------------------------------------------------------------------


def test_the_answer_alone_goes_to_standard_output(url: str) -> None:
    """Status, variant and timing to standard error."""
    done = serving("invoke", "default", "--body", ROW, "--accept", "text/csv", "--url", url)
    assert (0, 30.0) == (done.returncode, float(done.stdout))
    assert done.stderr.startswith(b"200 OK  variant AllTraffic  ")
    assert b"predict=" in done.stderr


def test_a_body_comes_from_text_file_or_input(url: str, tmp_path: Path) -> None:
    """The content type is guessed: from the file's name, or from how the text begins."""
    np.save(tmp_path / "x.npy", np.ones((1, COLUMNS), np.float32))
    (tmp_path / "x.csv").write_text(ROW)
    bodies = [
        (f"@{tmp_path / 'x.npy'}", b""),
        (f"@{tmp_path / 'x.csv'}", b""),
        (f"[[{ROW}]]", b""),
        ("-", ROW.encode()),
    ]
    for body, stdin in bodies:
        done = serving("invoke", "default", "--body", body, "--accept", "text/csv", "--url", url, stdin=stdin)
        assert 30.0 == float(done.stdout), done.stderr


def test_an_answer_as_json_has_invoke_endpoints_words(url: str) -> None:
    """With the receipt, in microseconds."""
    done = serving("invoke", "default", "--body", ROW, "--accept", "text/csv", "--json", "--url", url)
    fields = json.loads(done.stdout)
    assert (200, "AllTraffic", "30.0") == (
        fields["StatusCode"],
        fields["InvokedProductionVariant"],
        fields["Body"].strip(),
    )
    assert {"total", "queue", "load", "decode", "predict", "encode", "batch", "hit"} == set(fields["Timing"])


@pytest.mark.parametrize(
    ("endpoint", "body", "text"), [("nope", ROW, "ValidationError"), ("default", "1,2", "ModelError")]
)
def test_a_refusal_is_one_line_and_exit_status_one(url: str, endpoint: str, body: str, text: str) -> None:
    """Nothing on standard output."""
    done = serving("invoke", endpoint, "--body", body, "--url", url)
    assert (1, b"", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines()))
    assert text in done.stderr.decode()


@pytest.mark.parametrize("arguments", [["endpoints"], ["invoke", "e", "--body", "1"]])
def test_no_server_is_one_line_and_exit_status_one(arguments: list[str]) -> None:
    """With the URL that was tried."""
    done = serving(*arguments, "--url", "http://127.0.0.1:1")
    assert 1 == done.returncode
    assert done.stderr.startswith(b"Error: No answer from http://127.0.0.1:1 (Connection refused)")


def test_the_command_line_signs_with_the_servers_keys(models: Path, tmp_path: Path) -> None:
    """From the keys file in the settings, or the usual AWS variables; without, the server says what it wants."""
    secret = "a-secret-of-twenty-characters"
    keys = tmp_path / "keys.json"
    keys.write_text(
        json.dumps(
            [
                {"AccessKeyId": "READER", "SecretAccessKey": "x" * 20, "Permissions": ["read"]},
                {"AccessKeyId": "CALLER", "SecretAccessKey": secret, "Permissions": ["invoke:default"]},
            ]
        )
    )
    usual = {"AWS_ACCESS_KEY_ID": "CALLER", "AWS_SECRET_ACCESS_KEY": secret}
    file = {"SERVING_ACCESS_KEYS": str(keys)}
    with server(str(models / "sum.onnx"), "--data-dir", str(tmp_path / "data"), **file) as (address, _, _):
        call, listing = ["invoke", "default", "--body", ROW, "--url", address], ["endpoints", "--url", address]
        statuses = [
            serving(*call, **file).returncode,
            serving(*call, **usual).returncode,
            serving(*listing, **file).returncode,
            serving(*listing, **usual).returncode,
            serving(*call).returncode,
        ]
    assert [0, 0, 0, 1, 1] == statuses


# --- check ----------------------------------------------------------------------------------------------------------


def test_check_says_what_a_model_is_and_costs(models: Path) -> None:
    """Format, engine, inputs, bytes; exit status 0 when it loads."""
    done = serving("check", str(models / "sum.onnx"), "--json")
    found = json.loads(done.stdout)
    (model,) = found["models"]
    assert (0, True, "onnx", ["x: float32[rows, 30]"]) == (
        done.returncode,
        found["loads"],
        model["format"],
        model["inputs"],
    )
    assert model["memory_bytes"] < model["framework_bytes"]


def test_check_of_a_folder_tries_each_model(models: Path) -> None:
    """Archives too, wherever they lie."""
    done = serving("check", str(models))
    assert 0 == done.returncode
    loaded = {line for line in done.stdout.decode().splitlines() if line.endswith(": loads")}
    assert {"same.onnx: loads", "sum.onnx: loads", "packed.tar.gz: loads"} == loaded


def test_check_of_endpoints_tries_each_variant(models: Path, tmp_path: Path) -> None:
    """One bad variant is found, with the reason."""
    (tmp_path / "bad.onnx").write_bytes((models / "sum.onnx").read_bytes()[:100])
    config = tmp_path / "endpoints.yaml"
    config.write_text(
        f"""
        Models:
          - {{ModelName: good, PrimaryContainer: {{ModelDataUrl: {models / "sum.onnx"}}}}}
          - {{ModelName: bad, PrimaryContainer: {{ModelDataUrl: bad.onnx}}}}
          - {{ModelName: gone, PrimaryContainer: {{ModelDataUrl: gone.onnx}}}}
        EndpointConfigs:
          - EndpointConfigName: c
            ProductionVariants:
              - {{VariantName: a, ModelName: good}}
              - {{VariantName: b, ModelName: bad}}
              - {{VariantName: c, ModelName: gone}}
        Endpoints: [{{EndpointName: e, EndpointConfigName: c}}]
        """
    )
    done = serving("check", str(config), "--json")
    found = json.loads(done.stdout)
    assert (1, False) == (done.returncode, found["loads"])
    assert [("a", True), ("b", False), ("c", False)] == [(one["variant"], not one["error"]) for one in found["models"]]


CODE = {
    "crashes": (
        "import os, signal\ndef model_fn(model_dir): os.kill(os.getpid(), signal.SIGSEGV)",
        "crashed",
        "signal 11",
    ),
    "leaves": ("import os\ndef model_fn(model_dir): os._exit(7)", "crashed", "exit status 7"),
    "raises": ("def model_fn(model_dir): raise RuntimeError('no weights')", "no weights", ""),
    "hangs": ("import threading\ndef model_fn(model_dir): threading.Event().wait()", "within 3 seconds", ""),
}


@pytest.mark.parametrize("how", CODE)
def test_check_survives_whatever_a_model_does(how: str, tmp_path: Path) -> None:
    """It happens in another process: the answer is that it would not load, and why."""
    code, *words = CODE[how]
    folder = write_script_model(tmp_path / "m", code)
    done = serving("check", str(folder), "--allow-code", "--json", SERVING_LOAD_TIMEOUT_SECONDS="3")
    assert 1 == done.returncode, done.stderr
    error = json.loads(done.stdout)["models"][0]["error"]
    assert all(word in error for word in words)


def test_what_a_model_prints_is_not_the_answer(tmp_path: Path) -> None:
    """A script may write to standard output; the answer is still JSON."""
    folder = write_script_model(tmp_path / "m", "print('hello')\ndef model_fn(model_dir): print('there'); return 1")
    done = serving("check", str(folder), "--allow-code", "--json")
    assert (0, True) == (done.returncode, json.loads(done.stdout)["loads"])


# --- load -----------------------------------------------------------------------------------------------------------


def test_load_runs_locust_against_any_endpoint(url: str, tmp_path: Path) -> None:
    """And ends by itself, with a report."""
    options = ["--users", "1", "--seconds", "1", "--reports", str(tmp_path)]
    done = serving("load", "default", "--url", url, *options)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert [".html", ".json"] == sorted(path.suffix for path in tmp_path.iterdir())


# --- settings, version ----------------------------------------------------------------------------------------------


def test_settings_shows_every_row() -> None:
    """With the value of this run beside the default."""
    rows = json.loads(serving("settings", "--json", SERVING_MAX_BODY="1MiB").stdout)
    assert [row.env for row in SETTINGS] == [row["variable"] for row in rows]
    assert ("1048576", "6MiB") == next((r["value"], r["default"]) for r in rows if r["variable"] == "SERVING_MAX_BODY")


def test_settings_on_a_pipe_are_cells_between_tabs() -> None:
    """For cut and awk; no colours, no lines cut off."""
    lines = serving("settings").stdout.decode().splitlines()
    assert len(SETTINGS) + 1 == len(lines)
    assert {4} == {len(line.split("\t")) for line in lines}


def test_settings_prints_the_readmes_table() -> None:
    """So that nobody writes it by hand."""
    assert f"{settings_table()}\n" == serving("settings", "--markdown").stdout.decode()


def test_version_names_what_is_installed() -> None:
    """Without importing it."""
    found = json.loads(serving("version", "--json").stdout)
    assert {"serving", "python", "numpy", "onnxruntime"} <= set(found)
    assert f"serving {found['serving']}\n".encode() == serving("version").stdout


def test_help_is_there_for_every_command() -> None:
    """The overview names each, with its first line."""
    text = serving("--help").stdout.decode()
    for command in program.registered_commands:
        assert command.callback is not None
        assert command.callback.__name__ in text


# --- the client beneath ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [("127.0.0.1", 8080, "http://127.0.0.1:8080"), ("::1", 1, "http://[::1]:1"), ("[::1]", 1, "http://[::1]:1")],
)
def test_the_default_server_is_where_the_settings_say(host: str, port: int, expected: str) -> None:
    """IPv6 in brackets."""
    assert expected == base_url(Settings(host=host, port=port))


def test_a_server_on_all_addresses_is_asked_on_loopback(tmp_path: Path) -> None:
    """0.0.0.0 is no address to connect to."""
    settings = Settings(host="0.0.0.0", access_keys=tmp_path / "k")
    assert "http://127.0.0.1:8080" == base_url(settings)


@pytest.mark.parametrize(
    "bad", ["", "x", "http://", "http://h:99999", "http://h/?q", "http://u:p@h", "http://h\n", "http://h h"]
)
def test_a_wrong_url_is_refused(bad: str) -> None:
    """Before anything is sent; credentials do not belong in it."""
    with pytest.raises(ConfigError):
        Server(bad, Settings())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"__type": "E", "Message": "two\\nlines"}', "418 E: two lines"),
        (b"plain", "418 I'm a teapot: plain"),
        (b"[]", "418 I'm a teapot: []"),
        (b"\xff", "418 I'm a teapot: \ufffd"),
    ],
)
def test_any_error_answer_is_one_line(body: bytes, expected: str) -> None:
    """Whoever wrote it: us, a proxy, another server."""
    assert expected == Answer(418, "I'm a teapot", {}, body).complaint


def test_a_receipt_is_read_leniently() -> None:
    """A server of another make may not send one, or another."""
    assert {"total": 5, "hit": 1} == timing("total=5; odd; x=y; hit=1")


def test_health_is_asked_where_the_settings_say(url: str) -> None:
    """As the Dockerfile does: exit status 0 or 1."""
    port = url.rpartition(":")[2]
    assert (True, False) == (healthy(Settings(port=int(port))), healthy(Settings(port=1)))
    command = [sys.executable, "-m", "serving.client"]
    statuses = [
        subprocess.run(command, cwd=ROOT, env=CALM | {"SERVING_PORT": asked}, check=False).returncode
        for asked in (port, "1")
    ]
    assert [0, 1] == statuses


def test_a_models_words_cannot_drive_the_terminal(tmp_path: Path) -> None:
    """Escape sequences in an error are shown, not obeyed."""
    folder = write_script_model(tmp_path / "m", "def model_fn(model_dir): raise RuntimeError('\\x1b[2J gone')")
    done = serving("check", str(folder), "--allow-code")
    assert (1, True, False) == (done.returncode, b"gone" in done.stdout, b"\x1b" in done.stdout)


def test_a_folder_that_a_training_job_left_is_one_artifact(tmp_path: Path) -> None:
    """``model.tar.gz`` alone in a folder is served as a model; beside others, it is one of many."""
    (tmp_path / "model.tar.gz").touch()
    assert checking.is_artifact(tmp_path)
    (tmp_path / "other.tar.gz").touch()
    assert not checking.is_artifact(tmp_path)
