"""The console's pages as a browser gets them: what they tell, and whom, how they are kept, and what is escaped.

What they do in a browser: ``tests/browser``.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api import console_routes
from serving.api.console import assets, compared, figures, pages, panels, work
from serving.api.console.facts import Facts
from serving.api.console.markup import Html, el, html
from serving.api.console.sharing import Shared
from serving.monitor import outcomes
from serving.watch import points
from serving.watch.history import NOTHING
from serving.watch.slow import SlowCall
from tests.server import Server, declare, serve, variant
from tests.toys import ROW, write_sum_model

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"
KEYS = {"admin": ["*"], "reader": ["read"], "caller": ["invoke"], "alpha": ["read", "invoke:many/a/*"]}
PAGE = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


class Elements(HTMLParser):
    """What a browser would find in a page: elements with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element."""
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Text."""
        self.text += data

    def names(self) -> set[str]:
        """Of the elements."""
        return {name for name, _ in self.found}


# --- values: no server needed ----------------------------------------------------------------------------------------


def pool(name: str, ready: int, failure: str = "") -> dict[str, Any]:
    """A pool of the routing table with one worker that starts."""
    workers = [[str(n), "socket", "cell"] for n in range(ready)]
    states = [[str(n), n, "READY"] for n in range(ready)] + [["9", 9, "STARTING"]]
    return {"key": ["e", 1, name, "", ""], "multi_model": True, "desired": ready + 1, "failure": failure,
            "workers": workers, "states": states}  # fmt: skip


def row(name: str, **more: Any) -> dict[str, Any]:
    """An endpoint of the routing table: two variants and a shadow."""
    both = [("a", 3.0), ("b", 1.0)]
    return {
        "name": name, "config": "config", "status": "InService", "reason": "", "up": True, "asynchronous": False,
        "async": None, "capture": None, "explainer": None, "components": [],
        "variants": [{"name": one, "weight": weight, "pools": [pool(one, 1)]} for one, weight in both],
        "shadows": [{"name": "s", "weight": 4.0, "pools": [pool("s", 1)]}], **more,
    }  # fmt: skip


def facts(*rows: Mapping[str, Any], **more: Any) -> Facts:
    """What a page tells, of these endpoints."""
    still = points.point(NOTHING, NOTHING, 1.0)
    return Facts(0.0, rows, more.pop("now", {}), still, **({"events": [], "slow": [], "failed": []} | more))


def everything_hostile() -> Facts:
    """Whatever a model, a caller or a file may have named, named by an attacker."""
    bad = row(HOSTILE, config=HOSTILE, reason=HOSTILE, status=HOSTILE, up=False)
    bad["variants"][0]["name"] = HOSTILE
    bad["variants"][0]["pools"] = [pool(HOSTILE, 1, HOSTILE)]
    bad["capture"] = {"destination": HOSTILE, "percent": 5, "input": True, "output": False}
    bad["asynchronous"], bad["async"] = True, {"output": HOSTILE}
    call = SlowCall(0.0, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1.0, 424, HOSTILE)
    answered = SlowCall(0.0, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1.0, 200, "", (1, 2, 3, 4, 5, 6), False)
    event = {"time": 0.0, "endpoint": HOSTILE, "variant": HOSTILE, "text": HOSTILE}
    job = {"TransformJobName": HOSTILE, "TransformJobStatus": HOSTILE, "CreationTime": 0.0, "FailureReason": HOSTILE}
    schedule = {
        "MonitoringScheduleName": HOSTILE, "MonitoringScheduleStatus": HOSTILE, "MonitoringType": HOSTILE,
        "EndpointName": HOSTILE, "LastMonitoringExecutionSummary": {"MonitoringExecutionStatus": HOSTILE,
        "FailureReason": HOSTILE, "ScheduledTime": 0.0}, "LastMonitoringExecution": {"Violations": 3},
    }  # fmt: skip
    return facts(bad, events=[event], slow=[call, answered], failed=[call], jobs=[job], schedules=[schedule])


def test_no_name_becomes_markup() -> None:
    """Not on the overview, nor on an endpoint's page, nor in an attribute; the text itself is there."""
    told = everything_hostile()
    for page in (
        pages.overview(told, HOSTILE[:20], 0),
        pages.endpoint(told, told.rows[0], True, "http://h"),
        pages.refusal(HOSTILE, HOSTILE),
    ):
        seen = Elements(page.decode())
        assert "img" not in seen.names()
        assert all("src" in given for name, given in seen.found if name == "script")
        assert not [given for _, given in seen.found if any(key.startswith("on") or key == "style" for key in given)]
        assert "onerror=alert(2)" in seen.text


@given(st.text())
def test_text_survives_its_way_through_html(text: str) -> None:
    """As content and as an attribute: what comes out is what went in, as far as HTML can hold it."""
    if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text):
        return
    seen = Elements(el("p", text, title=text))
    assert (text, [("p", {"title": text})]) == (seen.text, seen.found)


def test_elements_are_written_as_they_are_meant() -> None:
    """Content nests, nothing is nothing, an attribute may stand alone."""
    made = el("p", "a<b", el("b", 1, 2.5), None, ["c", el("br")], class_="x", data_at=0, hidden=True, title=None)
    assert '<p class="x" data-at="0" hidden>a&lt;b<b>12.5</b>c<br></p>' == made
    assert isinstance(html(["<", made]), Html)
    with pytest.raises(TypeError, match="object is no content of a page"):
        html(object())


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (figures.number, 0.0, "0"), (figures.number, 0.254, "0.25"), (figures.number, 12.44, "12.4"),
        (figures.number, 3456.0, "3.46k"), (figures.number, float("nan"), "–"), (figures.number, 2e9, "2G"),
        (figures.milliseconds, 0.412, "412 µs"), (figures.milliseconds, 1500.0, "1.5 s"),
        (figures.milliseconds, None, "–"), (figures.size, 18_223_104.0, "18.2 MB"), (figures.size, 0.0, "0 B"),
        (figures.share, 0.333, "33.3 %"), (figures.rate, 7.0, "7/s"), (figures.age, 7200.0, "2 h"),
        (figures.age, 59.0, "59 s"), (figures.clock, 0.0, "00:00:00 UTC"), (figures.stamp, 0.0, "1970-01-01T00:00:00Z"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_people(write: Any, value: float | None, expected: str) -> None:
    """Three figures and a unit."""
    assert expected == write(value)


def test_the_table_tells_of_every_variant() -> None:
    """Weights as shares, workers that are on their way, what is a shadow, what keeps an endpoint from working."""
    now = {
        ("e", "a"): {"calls": 12.5, "p50": 0.8, "p99": 20.0, "errors_4xx": 0.5, "errors_5xx": 0.0, "model_bytes": 5e6}
    }
    told = Elements(panels.endpoints(facts(row("e", reason="no worker came up"), now=now))).text
    for words in (
        "no worker came up",
        "75 %",
        "25 %",
        "12.5/s",
        "800 µs",
        "0.5/s",
        "1 of 2 (1 starting)",
        "shadow",
        "5 MB",
    ):
        assert words in told


def test_endpoints_in_trouble_come_first_and_the_table_has_pages() -> None:
    """Fifty to a page; a part of a name finds."""
    many = [row(f"e{n:03}") for n in range(120)] + [row("zz", status="Failed")]
    first, found = panels.chosen(many, "", 0)
    assert (121, 50, "zz", "e000") == (found, len(first), first[0]["name"], first[1]["name"])
    assert ["e007"] == [one["name"] for one in panels.chosen(many, "E007", 0)[0]]
    assert "101–121 of 121" in Elements(panels.endpoints(facts(*many), "", 2)).text
    assert [] == panels.chosen(many, "", 9999)[0]


def test_a_receipt_is_drawn_and_told() -> None:
    """The bar is decoration; the words are for everybody."""
    call = SlowCall(0.0, "e", "a", "m.onnx", "id", 0.010, 200, "", (4000, 0, 1000, 3000, 0, 7), False)
    seen = Elements(panels.receipt(call))
    widths = {given["class"]: given["width"] for name, given in seen.found if name == "rect"}
    assert {"step queue": "40.0", "step decode": "10.0", "step predict": "30.0", "step other": "20.0"} == widths
    assert "queue 4 ms · decode 1 ms · predict 3 ms · other 2 ms · batch of 7 · model was not in memory" == seen.text


def test_a_running_job_shows_how_far_it_is() -> None:
    """A share of its input, and its records; one that has ended, why."""
    jobs = [
        {"TransformJobName": "j", "TransformJobStatus": "InProgress", "CreationTime": 0.0},
        {
            "TransformJobName": "k",
            "TransformJobStatus": "Failed",
            "CreationTime": 0.0,
            "FailureReason": "no such object",
        },
    ]
    now = {("transform-job/j", "AllTraffic"): {"progress": 0.42, "records_done": 1200.0, "records_failed": 3.0}}
    told = Elements(work.jobs(facts(jobs=jobs, now=now)))
    assert [{"value": "0.4200", "max": "1", "aria-label": "Progress"}] == [a for n, a in told.found if n == "progress"]
    assert "42 % · 1.2k records · 3 failed" in told.text
    assert "no such object" in told.text


def test_a_schedule_tells_what_its_last_execution_found() -> None:
    """How it ended, violations, the features farthest from the baseline, and metrics."""
    schedule = {
        "MonitoringScheduleName": "daily", "MonitoringScheduleStatus": "Scheduled", "MonitoringType": "DataQuality",
        "EndpointName": "e", "LastMonitoringExecution": {"Violations": 3, "ExitMessage": "3 violations"},
        "LastMonitoringExecutionSummary": {"MonitoringExecutionStatus": "CompletedWithViolations", "ScheduledTime": 0},
        "Drift": {f"f{n}": n / 10 for n in range(10)}, "Metrics": {"f1": 0.9},
    }  # fmt: skip
    told = Elements(work.monitoring(facts(schedules=[schedule]), "e"))
    for words in ("daily", "data quality", "CompletedWithViolations", "3 violations", "f9", "0.9", "f1"):
        assert words in told.text
    assert ["100.0", "88.9"] == [given["width"] for name, given in told.found if name == "rect"][:2]
    assert "Nothing is being monitored." in Elements(work.monitoring(facts(schedules=[schedule]), "other")).text


def test_a_verdict_may_be_asked_by_every_metric_there_is() -> None:
    """Those of ``monitor/outcomes.py``."""
    assert set(outcomes.METRICS) == set(compared.METRICS)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False), ("*/*", False), ("text/html", True), (PAGE["Accept"], True), ("application/json, */*", False),
        ("text/html;q=0", False), ("text/html;q=0.0, */*", False), ("TEXT/HTML; q=0.2", True), ("text/*", False),
    ],
)  # fmt: skip
def test_only_who_asks_for_html_by_name_gets_a_page(accept: str, expected: bool) -> None:
    """Everybody accepts anything; curl and scripts get plain words as ever."""
    assert expected == console_routes.wants_page(accept)


async def _asked_twice() -> tuple[list[int], int]:
    made = 0

    async def make() -> int:
        nonlocal made
        made += 1
        return made

    clock = [0.0]
    shared = Shared(lambda: clock[0])
    first = [await shared.get("k", make, lambda _: 5.0) for _ in range(3)]
    clock[0] = 6.0
    return [*first, await shared.get("k", make, lambda _: 5.0)], made


def test_many_tabs_share_an_answer() -> None:
    """Until the next is due."""
    assert ([1, 1, 1, 2], 2) == asyncio.run(_asked_twice())


# --- over the wire ---------------------------------------------------------------------------------------------------


def secret(key: str) -> str:
    """The secret of a key."""
    return f"{key}-secret-{key}-secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with keys: an endpoint of many models, and one that captures nothing."""
    folder = tmp_path_factory.mktemp("console")
    write_sum_model(folder / "many" / "a" / "one.onnx")
    write_sum_model(folder / "one.onnx")
    models: dict[str, Mapping[str, Any]] = {
        "many": {"ModelDataUrl": "many/", "Mode": "MultiModel"}, "one": {"ModelDataUrl": "one.onnx"},
    }  # fmt: skip
    endpoints = {"many": [variant("many")], "one": [variant("one", "a"), variant("one", "b")]}
    keys = [{"AccessKeyId": key, "SecretAccessKey": secret(key), "Permissions": may} for key, may in KEYS.items()]
    (folder / "keys.json").write_text(json.dumps(keys))
    environment = {"SERVING_ACCESS_KEYS": str(folder / "keys.json"), "SERVING_DEFAULT_ENDPOINT": "many"}
    config = str(declare(folder / "e.yaml", endpoints, models))
    with serve(folder, "--config", config, environment=environment) as running:
        yield running
        assert "Traceback" not in running.log


def get(server: Server, path: str, key: str = "admin", **headers: str) -> httpx.Response:
    """What a browser with this key gets; without one, a stranger's."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    with server.client(auth=(key, secret(key)) if key else None) as asking:
        return asking.get(path, headers=PAGE | given)


def test_the_root_is_a_page_for_browsers_and_words_for_others(server: Server) -> None:
    """By Accept; caches are told so."""
    page, words = get(server, "/"), get(server, "/", Accept="*/*")
    assert ("text/html; charset=utf-8", "text/plain; charset=utf-8") == (
        page.headers["content-type"], words.headers["content-type"],
    )  # fmt: skip
    assert words.text.startswith("serving: an inference server that speaks SageMaker\n\nPOST /endpoints/")
    assert ("Accept", "Accept") == (page.headers["vary"], words.headers["vary"])
    seen = Elements(page.text)
    assert {"main", "h1", "h2", "nav", "table", "caption", "noscript", "footer", "dl"} <= seen.names()
    for words_ in ("many", "one", "InService", "2 of 2 endpoints in service"):
        assert words_ in seen.text


def test_a_page_loads_nothing_from_elsewhere_and_runs_nothing_of_its_own(server: Server) -> None:
    """Every source is ours; no script or style stands in it; and the browser is told to keep it so."""
    for path in ("/", "/console/endpoints/one"):
        page = get(server, path)
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
        assert ("'none'", "'self'", "'self'", "'none'") == tuple(
            policy[one] for one in ("default-src", "script-src", "style-src", "frame-ancestors")
        )
        assert "unsafe" not in page.headers["content-security-policy"]
        assert "no-store" == page.headers["cache-control"]
        for name, has in Elements(page.text).found:
            loaded = has.get("src") or (has.get("href") if name == "link" else None)
            assert loaded is None or loaded.startswith("/console/static/")
            assert name != "style" and "style" not in has


def test_files_are_kept_for_good_under_their_fingerprint(server: Server) -> None:
    """By that URL; otherwise asked for again, and not sent again when nothing has changed."""
    path = assets.url("console.js")
    first = get(server, path)
    assert (200, "private, max-age=31536000, immutable") == (first.status_code, first.headers["cache-control"])
    assert "text/javascript; charset=utf-8" == first.headers["content-type"]
    assert 304 == get(server, path, If_None_Match=first.headers["etag"]).status_code
    assert "private, no-cache" == get(server, path.partition("?")[0]).headers["cache-control"]
    plain = get(server, path, Accept_Encoding="identity")
    assert (first.content, None) == (plain.content, plain.headers.get("content-encoding"))
    assert "MIT License" in get(server, assets.url("uplot-license.txt")).text


@pytest.mark.parametrize("name", ["nothing.js", "..%2f..%2fpages.py", "%2e%2e", "uplot%2fLICENSE", "console.css%00"])
def test_no_other_file_is_served(server: Server, name: str) -> None:
    """By any spelling."""
    assert 404 == get(server, f"/console/static/{name}", Accept="*/*").status_code


def test_a_browser_without_a_key_is_asked_for_one(server: Server) -> None:
    """401 with Basic for pages, so that it asks its user; scripts get 403 and JSON as everywhere. One whose key is good
    but not for this is told so, and not asked again."""
    stranger = get(server, "/", key="")
    assert (401, 'Basic realm="serving", charset="UTF-8"') == (
        stranger.status_code, stranger.headers["www-authenticate"],
    )  # fmt: skip
    with server.client(auth=("admin", "wrong-secret-wrong-secret")) as asking:
        assert 401 == asking.get("/console/endpoints/one", headers=PAGE).status_code
        assert 403 == asking.get("/console").status_code
        assert 401 == asking.get("/console", headers={"Accept": "application/vnd.serving.numbers"}).status_code
    refused = get(server, "/", key="caller")
    assert (403, False) == (refused.status_code, "www-authenticate" in refused.headers)
    assert "lacks the permission" in Elements(refused.text).text


@pytest.mark.parametrize(
    ("key", "endpoint", "offered"),
    [("admin", "one", True), ("reader", "one", False), ("alpha", "one", False), ("alpha", "many", True)],
)
def test_the_form_is_for_who_may_invoke(server: Server, key: str, endpoint: str, offered: bool) -> None:
    """Others are told why there is none."""
    seen = Elements(get(server, f"/console/endpoints/{endpoint}", key=key).text)
    forms = [given for name, given in seen.found if name == "form" and given.get("id") == "try-form"]
    assert (offered, not offered) == (bool(forms), "does not have the permission invoke" in seen.text)


def test_an_endpoints_page_fits_it(server: Server) -> None:
    """A model to name where there are many, a variant where there are several; curl's words for the same."""
    many, one = (Elements(get(server, f"/console/endpoints/{name}").text) for name in ("many", "one"))
    fields = [
        {given.get("name") for name, given in seen.found if name in ("input", "select", "textarea")}
        for seen in (many, one)
    ]
    assert ({"model"}, {"variant", "metric"}) == (fields[0] - fields[1], fields[1] - fields[0])
    assert f"curl {server.url}/endpoints/many/invocations" in many.text
    assert "Which variant is better" in one.text


def test_an_endpoint_that_is_not_there_is_a_page_too(server: Server) -> None:
    """404; its name is text."""
    gone = get(server, "/console/endpoints/%3Cscript%3E")
    assert (404, {"script"}) == (gone.status_code, Elements(gone.text).names() & {"script", "img"})
    assert "Endpoint <script> of account" in Elements(gone.text).text


def test_numbers_come_in_increments(server: Server) -> None:
    """Points after a sample, and only the panels that have changed."""
    with server.client(auth=("reader", secret("reader"))) as asking:

        def asked(**query: object) -> dict[str, Any]:
            found: dict[str, Any] = asking.get("/console", params={k: str(v) for k, v in query.items()}).json()
            return found

        server.eventually(lambda: len(asked(since=0)["times"]) >= 1)
        whole = asked(since=0, have="nonsense,:,::::")
        assert whole["reset"]
        assert {"tiles", "endpoints", "slow", "failed", "events", "jobs", "monitoring"} == set(whole["panels"])
        have = ",".join(f"{id}:{panel['print']}" for id, panel in whole["panels"].items())
        server.eventually(lambda: asked(since=whole["number"])["number"] > whole["number"])
        more = asked(since=whole["number"], have=have)
        assert not more["reset"]
        assert more["number"] - whole["number"] == len(more["times"]) == len(more["server"]["calls"])
        assert "monitoring" not in more["panels"]
        own = asked(since=0, endpoint="one")
        assert {"a", "b"} <= {line["variant"] for line in own["lines"]}
        assert {"state", "variants"} <= set(own["panels"])


@pytest.mark.parametrize(
    "query", ["since=-1", "since=x", "since=" + "9" * 40, "endpoint=nobody", "endpoint=<b>", "since=%00"]
)
def test_bad_questions_for_numbers_are_refused(server: Server, query: str) -> None:
    """400 and JSON, never 500."""
    answer = get(server, f"/console?{query}", Accept="application/json")
    assert (400, "application/json") == (answer.status_code, answer.headers["content-type"])


def test_slow_and_failed_calls_are_shown_escaped(server: Server) -> None:
    """With what the caller named them; no body is told."""
    named = "<img src=x onerror=alert(1)>.onnx"
    headers = {"Content-Type": "text/csv", "X-Amzn-SageMaker-Target-Model": named}
    with server.client(auth=("admin", secret("admin"))) as asking:
        assert 200 != asking.post("/endpoints/many/invocations", content=b"secret,body", headers=headers).status_code
        good = headers | {"X-Amzn-SageMaker-Target-Model": "a/one.onnx"}
        assert 200 == asking.post("/endpoints/many/invocations", content=ROW, headers=good).status_code

        def page() -> Elements:
            return Elements(asking.get("/", headers=PAGE).text)

        server.eventually(lambda: named in page().text and "a/one.onnx" in page().text)
        assert "img" not in page().names()
        assert "secret,body" not in page().text


def test_what_was_worked_out_about_variants_is_told(server: Server) -> None:
    """As part of a page for the script, as a page for who has none."""
    part = get(server, "/console/endpoints/one/verdict?metric=error-rate", Accept="text/vnd.serving.part")
    page = get(server, "/console/endpoints/one/verdict?metric=error-rate")
    assert part.text in page.text
    assert {"p", "table"} <= Elements(part.text).names()
    assert "main" not in Elements(part.text).names()
    refused = get(server, "/console/endpoints/one/shadow-report", Accept="text/vnd.serving.part")
    assert (400, "Endpoint one has no shadow variant.") == (refused.status_code, refused.json()["Message"])


def test_another_sites_page_may_not_send_calls(server: Server) -> None:
    """Our own may: its Origin is the host it was asked by."""
    with server.client(auth=("admin", secret("admin"))) as asking:
        for origin, status in ((server.url, 200), ("http://evil.example", 403), ("null", 403)):
            headers = {"Content-Type": "text/csv", "Origin": origin}
            assert status == asking.post("/endpoints/one/invocations", content=ROW, headers=headers).status_code


@pytest.mark.parametrize("path", ["/console?since=0", "/console/endpoints/one/verdict", "/console/endpoints/one/calls"])
def test_another_sites_page_may_not_make_us_work(server: Server, path: str) -> None:
    """A browser says whose page asks."""
    for site, ours in (("cross-site", False), ("same-site", False), ("same-origin", True), ("none", True)):
        answer = get(server, path, Accept="*/*", Sec_Fetch_Site=site)
        assert ours == (answer.status_code != 403), site


def test_without_keys_pages_are_shown_under_this_machines_names_alone(tmp_path: Any) -> None:
    """A site that points a name of its own at loopback reads nothing."""
    with serve(tmp_path) as running, running.client() as asking:
        for host, status in (
            ("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("a.localhost", 200),
            ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("10.0.0.1", 403), ("local host", 403),
        ):  # fmt: skip
            assert status == asking.get("/", headers=PAGE | {"Host": host}).status_code, host
            assert status == asking.get("/console?since=0", headers={"Host": host}).status_code, host
        assert "There is no endpoint yet." in Elements(asking.get("/", headers=PAGE).text).text
