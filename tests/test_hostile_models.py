"""Whatever a model does: its caller gets an answer in time, its neighbours notice nothing, the server stays."""

from __future__ import annotations

import random
import resource
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import gallery
from tests.load import Load, Outcome, call
from tests.processes import children
from tests.server import Server, declare, script_model, serve, variant

TIMEOUT = 3.0
#: Promised: an answer by the time limit and one second; the rest is for a busy machine.
IN_TIME = TIMEOUT + 1.0 + 1.5
ENVIRONMENT = {"SERVING_INVOCATION_TIMEOUT_SECONDS": str(TIMEOUT), "SERVING_WORKER_MEMORY": "512MB"}

HEAD = "import ctypes, os, re, signal, subprocess, sys, threading, time\n"
TRANSFORM = "def transform_fn(model, body, content_type, accept):\n"
GOOD = HEAD + TRANSFORM + "    return body, 'text/plain'\n"


def acting(*lines: str) -> str:
    """A script whose model does this when it is called."""
    return HEAD + "kept = []\n" + TRANSFORM + "".join(f"    {line}\n" for line in lines) + "    return body\n"


def loading(line: str) -> str:
    """A script that does this when it is loaded."""
    return HEAD + f"{line}\n" + TRANSFORM + "    return body\n"


#: Ends its worker. The call is tried once more, then it is an error.
KILLERS = {
    "crashes": acting("ctypes.string_at(0)"),
    "crashes-late": acting("time.sleep(0.1)", "ctypes.string_at(0)"),  # the model waits, not the test
    "crashes-in-a-thread": acting(
        "thread = threading.Thread(target=ctypes.string_at, args=(0,))", "thread.start()", "thread.join()"
    ),
    "aborts": acting("os.abort()"),
    "exits": acting("os._exit(0)"),
    "kills-itself": acting("os.kill(os.getpid(), signal.SIGKILL)"),
    "closes-everything": acting("os.closerange(3, 65536)"),
    "closes-everything-and-waits": acting("os.closerange(3, 65536)", "time.sleep(60)"),  # the model hangs
    "crashes-at-load": loading("ctypes.string_at(0)"),
    "exits-at-load": loading("os._exit(0)"),
}
#: Never answers.
HANGERS = {
    "sleeps": acting("time.sleep(3600)"),  # the model hangs; the test waits for its end
    "loops": acting("while True: pass"),
    "talks-nonsense-for-us": acting(
        "import stat",
        "for name in os.listdir('/proc/self/fd'):",
        "    try:",
        "        if stat.S_ISSOCK(os.fstat(int(name)).st_mode): os.write(int(name), bytes([255]) * 100)",
        "    except OSError: pass",
        "time.sleep(60)",  # the model hangs
    ),
    "holds-the-lock": acting("re.match(r'(a+)+$', 'a' * 40 + 'b')"),
}
#: Fails, and harms nobody: status in the body's OriginalStatusCode, and what the message says.
FAILERS = {
    "raises": (acting("raise ValueError('no')"), 500, "ValueError: no"),
    "exits-politely": (acting("sys.exit(3)"), 500, "SystemExit"),
    "interrupts": (acting("raise KeyboardInterrupt"), 500, "KeyboardInterrupt"),
    "raises-what-cannot-be-told": (
        HEAD + "class Mute(Exception):\n    def __str__(self): raise RuntimeError\n" + TRANSFORM + "    raise Mute()\n",
        500,
        "RuntimeError",
    ),
    "raises-half-a-character": (acting("raise ValueError(chr(0xdc80))"), 500, "ValueError"),
    "recurses": (
        HEAD + TRANSFORM + "    return transform_fn(model, body, content_type, accept)\n",
        500,
        "RecursionError",
    ),
    "wants-too-much": (acting("bytes(2 ** 40)"), 507, "memory"),
    "fills-memory": (acting("kept = [bytearray(10 ** 7) for _ in range(10 ** 6)]"), 507, "memory"),
    "answers-with-an-object": (HEAD + TRANSFORM + "    return object()\n", 406, ""),
    "answers-without-end": (HEAD + TRANSFORM + "    return iter(lambda: b'x' * 10 ** 7, None)\n", 500, "longer"),
    "raises-at-load": (loading("raise ValueError('no')"), 500, "ValueError: no"),
    "exits-politely-at-load": (loading("sys.exit(3)"), 500, "SystemExit"),
    "fills-memory-at-load": (loading("kept = [bytearray(10 ** 7) for _ in range(10 ** 6)]"), 507, "memory"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, good and bad."""
    folder = tmp_path_factory.mktemp("models")
    scripts = KILLERS | HANGERS | {name: source for name, (source, _, _) in FAILERS.items()}
    for name, source in scripts.items():
        script_model(folder / name, source)
    for name in ("good", "other"):
        script_model(folder / name, GOOD)
    shutil.copy(gallery.artifacts("zoo") / "zoo" / "model-000.ubj", folder / "native.ubj")
    return folder


@contextmanager
def serving(tmp_path: Path, folder: Path, **environment: str) -> Iterator[Server]:
    """A server whose endpoint ``default`` is all the models in a folder, in one worker."""
    models = {"many": {"ModelDataUrl": str(folder), "Mode": "MultiModel"}}
    config = declare(tmp_path / "many.yaml", {"default": [variant("many")]}, models)
    with serve(tmp_path, "--config", str(config), "--allow-code", environment=ENVIRONMENT | environment) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Server]:
    """One server for all: what one model does must not matter to the next."""
    with serving(tmp_path_factory.mktemp("server"), models) as running:
        yield running


@contextmanager
def neighbours(server: Server) -> Iterator[None]:
    """Other models are called all the while: not one call may fail, before, during or after."""
    row = gallery.sample("zoo")
    with (
        Load(server.url, 2, b"hello", "good") as scripts,
        Load(server.url, 1, row.body, "native.ubj", content_type=row.content_type) as natives,
    ):
        scripts.wait(10)
        natives.wait(10)
        yield
        scripts.wait(10)
        natives.wait(10)
        scripts.stop()
        natives.stop()
        assert [] == scripts.failures
        assert [] == natives.failures


def said(outcome: Outcome) -> tuple[int, str]:
    """OriginalStatusCode and OriginalMessage of a model error."""
    assert 424 == outcome.status, outcome
    assert "ModelError" == outcome.headers["x-amzn-errortype"]
    return outcome.fields["OriginalStatusCode"], outcome.fields["OriginalMessage"]


def deaths(server: Server) -> float:
    """Workers that have ended without being told to."""
    return server.metric("sagemaker_worker_deaths_total")


@pytest.mark.parametrize("name", KILLERS)
def test_a_model_that_ends_its_worker_costs_two_and_nobody_else_a_call(server: Server, name: str) -> None:
    """The caller hears of it; the neighbours' calls are tried again where needed, and succeed."""
    before = deaths(server)
    with neighbours(server):
        outcome = call(server.url, b"x", name)
        status, message = said(outcome)
        assert 500 == status
        assert "again when it was retried" in message
        assert outcome.seconds < IN_TIME
        server.eventually(lambda: [one["State"] for one in server.workers()] == ["READY"], 5)
    assert 2 == deaths(server) - before


@pytest.mark.parametrize("name", HANGERS)
def test_a_model_that_hangs_is_given_up_in_time_and_holds_up_nobody(server: Server, name: str) -> None:
    """424 with OriginalStatusCode 0 by the time limit; the stuck worker is replaced."""
    before = {one["Pid"] for one in server.workers()}
    with neighbours(server):
        outcome = call(server.url, b"x", name)
        assert 0 == said(outcome)[0]
        assert outcome.seconds < IN_TIME
        server.eventually(lambda: before.isdisjoint(one["Pid"] for one in server.workers()), 5)


def test_loads_that_hang_hold_up_no_other_load(tmp_path: Path) -> None:
    """Callers of a model that never finishes loading hear so in time, other cold models load meanwhile, and the worker
    is replaced when the time for loading is over."""
    hanging = [f"hangs-{number}" for number in range(4)]
    for name in hanging:
        script_model(tmp_path / "models" / name, loading("time.sleep(3600)"))  # its load hangs
    shutil.copy(gallery.artifacts("zoo") / "zoo" / "model-000.ubj", tmp_path / "models" / "native.ubj")
    row = gallery.sample("zoo")
    limits = {"SERVING_INVOCATION_TIMEOUT_SECONDS": "6", "SERVING_LOAD_TIMEOUT_SECONDS": "7"}
    with serving(tmp_path, tmp_path / "models", **limits) as server, ThreadPoolExecutor() as callers:
        stuck = server.workers()[0]["Pid"]
        hung = [callers.submit(call, server.url, b"", name) for name in hanging]
        server.eventually(lambda: server.metric("sagemaker_concurrent_requests") == len(hanging))
        assert 200 == call(server.url, row.body, "native.ubj", row.content_type).status
        answers = [one.result() for one in hung]
        assert {(429, "ModelNotReadyException")} == {(one.status, one.headers["x-amzn-errortype"]) for one in answers}
        assert max(one.seconds for one in answers) < 6.0 + 1.0 + 1.5
        server.eventually(lambda: stuck not in {one["Pid"] for one in server.workers()})
        assert 200 == call(server.url, row.body, "native.ubj", row.content_type).status


@pytest.mark.parametrize("name", FAILERS)
def test_a_model_that_fails_answers_with_its_failure_and_harms_no_worker(server: Server, name: str) -> None:
    """No worker dies; the error says whose it is, in a sentence without paths."""
    _, wanted, words = FAILERS[name]
    before = deaths(server)
    with neighbours(server):
        outcome = call(server.url, b"x", name)
        status, message = said(outcome)
        assert (wanted, True) == (status, words in message), message
        assert str(server.data_dir.parent) not in message
        assert outcome.seconds < IN_TIME
    assert before == deaths(server)


def test_a_model_that_keeps_crashing_is_refused_and_its_neighbours_are_not(server: Server) -> None:
    """Quarantine: refused at once, by name, for a while; no worker dies for a refusal."""
    with neighbours(server):
        server.eventually(lambda: "is refused for another" in said(call(server.url, b"x", "crashes"))[1])
        before = deaths(server)
        refused = [call(server.url, b"x", "crashes") for _ in range(20)]
        assert {500} == {said(one)[0] for one in refused}
        assert all("'crashes' keeps ending its worker" in said(one)[1] for one in refused)
    assert before == deaths(server)


def test_a_leak_is_cured_without_an_error(server: Server, models: Path) -> None:
    """A model keeps 100 MB of every call in a worker of 512 MB: workers are replaced before anybody lacks memory, and
    no call of its own or of others fails."""
    script_model(models / "leaks", acting("kept.append(bytearray(10 ** 8))"))
    before = deaths(server)
    with neighbours(server):
        answers = [call(server.url, b"x", "leaks").status for _ in range(12)]
        assert [200] * 12 == answers
    assert before == deaths(server)


WITH_CONTEXT = HEAD + "def transform_fn(model, body, content_type, accept, context):\n"
#: Answers that must not become what they try to be.
BREAKS = {
    "breaks-its-content-type": acting("return body, 'text/plain\\r\\nX-Evil: 1\\r\\n\\r\\nevil'"),
    "breaks-its-headers": WITH_CONTEXT
    + "    context.response_headers['X-Amzn-SageMaker-Custom-Attributes'] = 'a\\r\\nX-Evil: 1'\n"
    + "    context.response_headers['X-Evil'] = '1'\n"
    + "    context.response_headers['X-Amzn-SageMaker-Session-Id'] = 'a\\0X-Evil: 1'\n"
    + "    return body\n",
}


@pytest.mark.parametrize("name", BREAKS)
def test_no_line_break_of_a_model_gets_into_the_answer(server: Server, models: Path, name: str) -> None:
    """The body is the model's, the headers are ours."""
    script_model(models / name, BREAKS[name])
    outcome = call(server.url, b"body", name)
    assert (200, b"body") == (outcome.status, outcome.body)
    assert "x-evil" not in outcome.headers


def test_too_many_headers_of_a_model_are_its_failure(server: Server, models: Path) -> None:
    """More than a frame's head can hold is refused where it was made."""
    lines = "    context.response_headers.update({f'X-Amzn-SageMaker-{n}': 'x' * 1000 for n in range(100)})\n"
    script_model(models / "floods-its-headers", WITH_CONTEXT + lines + "    return body\n")
    assert (500, "the model's response headers are too long") == said(call(server.url, b"", "floods-its-headers"))


def test_a_long_answer_arrives_whole_and_holds_up_nobody(server: Server, models: Path) -> None:
    """60 MB leave in pieces, as the front takes them."""
    script_model(models / "verbose", HEAD + TRANSFORM + "    return bytes(range(256)) * 240_000\n")
    with neighbours(server):
        outcome = call(server.url, b"", "verbose")
        assert (200, 61_440_000) == (outcome.status, len(outcome.body))
        assert bytes(range(256)) * 240_000 == outcome.body


def test_what_a_model_prints_goes_to_the_log(server: Server, models: Path) -> None:
    """Megabytes of it: the call is answered, and the words are in the server's log."""
    lines = ("for number in range(2000):", "    print('blah' * 300)", "print('that was', 'all')")
    script_model(models / "talks", acting(*lines))
    assert 200 == call(server.url, b"", "talks").status
    server.wait_for("that was all")


def test_threads_that_outlive_a_call_do_not_keep_the_server(tmp_path: Path) -> None:
    """A model leaves threads that never end: calls are answered, and SIGTERM still ends it all with status 0."""
    lines = ("threading.Thread(target=time.sleep, args=(3600,)).start()", "return body")
    script_model(tmp_path / "models" / "threads", acting(*lines))
    with serving(tmp_path, tmp_path / "models") as server:
        assert [200] * 20 == [call(server.url, b"", "threads").status for _ in range(20)]
        assert 0 == server.stop()


@pytest.mark.parametrize("kind", ["ubj", "onnx"])
def test_damaged_model_files_harm_nobody_but_their_callers(server: Server, models: Path, kind: str) -> None:
    """Truncated and with flipped bytes: an error or an answer, at worst a worker, never the front or a neighbour."""
    sources = {
        "ubj": gallery.artifacts("zoo") / "zoo" / "model-001.ubj",
        "onnx": gallery.artifacts("digits-pipeline-onnx") / "digits-pipeline-onnx" / "model.onnx",
    }
    row = gallery.sample("zoo" if kind == "ubj" else "digits-pipeline-onnx")
    dice, whole = random.Random(kind), sources[kind].read_bytes()
    front = call(server.url, b"", "good").headers["x-amzn-requestid"][:24]
    with neighbours(server):
        for number in range(24):
            (models / f"damaged-{number}.{kind}").write_bytes(damaged(whole, dice))
            outcome = call(server.url, row.body, f"damaged-{number}.{kind}", row.content_type)
            assert outcome.status in (200, 400, 424, 429), outcome  # 429: a busy machine has not loaded it in time
            assert outcome.seconds < IN_TIME
            assert str(models).encode() not in outcome.body
    assert front == call(server.url, b"", "good").headers["x-amzn-requestid"][:24]


def damaged(whole: bytes, dice: random.Random) -> bytes:
    """A file cut short, or with some of its bytes changed."""
    if dice.random() < 0.3:
        return whole[: dice.randrange(len(whole))]
    torn = bytearray(whole)
    for _ in range(dice.choice((1, 8, 64))):
        torn[dice.randrange(len(torn))] = dice.randrange(256)
    return bytes(torn)


# -- busy and slow models --------------------------------------------------------------------------------------------


def test_a_slow_model_holds_up_no_fast_one(server: Server, models: Path) -> None:
    """While one call of a slow model runs, the same worker answers many of a fast one."""
    script_model(models / "slow", acting("time.sleep(1.5)"))  # a slow model
    with ThreadPoolExecutor() as callers, Load(server.url, 1, b"hello", "good") as load:
        load.wait(10)
        slow = callers.submit(call, server.url, b"x", "slow")
        while not slow.done():
            load.wait(1)
        answered = [one for one in load.outcomes if slow.result().began < one.began]
        assert 200 == slow.result().status
        assert 50 < len(answered)


def test_one_busy_model_does_not_starve_the_others(tmp_path: Path) -> None:
    """Forty callers of a model that answers ten a second, in a queue of thirty-two: theirs are refused, not others'."""
    script_model(tmp_path / "models" / "busy", acting("time.sleep(0.1)"))  # a slow model
    script_model(tmp_path / "models" / "good", GOOD)
    with (
        serving(tmp_path, tmp_path / "models", SERVING_MAX_QUEUE="32") as server,
        Load(server.url, 40, b"x", "busy") as busy,
        Load(server.url, 2, b"x", "good") as good,
    ):
        busy.wait(200)
        good.wait(200)
        busy.stop()
        good.stop()
        assert [] == good.failures
        assert {200, 429} == {one.status for one in busy.outcomes}


def test_overload_is_refused_at_once_and_passes_without_a_trace(tmp_path: Path) -> None:
    """Ten times what a model can do: capacity is used, the rest is told when to come back, memory stays, then calm."""
    artifact = script_model(tmp_path / "slow", acting("time.sleep(0.05)"))  # a slow model
    limits = ENVIRONMENT | {"SERVING_MAX_QUEUE": "20"}
    with serve(tmp_path, str(artifact), "--allow-code", environment=limits) as server:
        before = memory_of(server)
        with Load(server.url, 200, bytes(10_000)) as load:
            load.wait(4000)
        answered = [one for one in load.outcomes if one.status == 200]
        refused = [one for one in load.outcomes if one.status == 429]
        assert len(load.outcomes) == len(answered) + len(refused)
        took = max(one.began + one.seconds for one in answered) - min(one.began for one in answered)
        assert 0.8 * took / 0.05 < len(answered) + 20
        assert {"ThrottlingException"} == {one.headers["x-amzn-errortype"] for one in refused}
        assert all(int(one.headers["retry-after"]) >= 1 for one in refused)
        assert all(1 <= int(one.headers["x-amz-retry-after"]) <= 5000 for one in refused)
        assert max(one.seconds for one in answered) < IN_TIME
        assert memory_of(server) - before < 60 * 2**20
        assert 200 == call(server.url).status
        server.eventually(lambda: server.metric("sagemaker_concurrent_requests") == 0)


def memory_of(server: Server) -> int:
    """Bytes of all its processes in physical memory."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in children(server.process.pid)]
    return sum(pages) * resource.getpagesize()
