"""The console in headless Chromium: it comes alive, draws what happens, answers by keyboard, and can be read by anyone.

``python -m tests.browser`` runs these; they are no part of the usual run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.server import Server, declare, serve, variant
from tests.toys import ROW, write_sum_model

pytestmark = pytest.mark.browser
#: What has no such library has no browser tests to collect either, but the usual run passes through here.
sync_api: Any = pytest.importorskip("playwright.sync_api", reason="python -m tests.browser installs it")

HOSTILE = "<img src=x onerror=alert(1)>.onnx"
SECRET = "admin-secret-admin-secret"
ALIVE = "html[data-live=yes]"
OVERVIEW, ENDPOINT = "/", "/console/endpoints/one"
#: A rate above 0.
SOME = re.compile(r"^(0\.\d|[1-9])")
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An endpoint of two variants and one of many models."""
    folder = tmp_path_factory.mktemp("browser")
    with serve(folder, "--config", _config(folder)) as running:
        yield running


def _config(folder: Path) -> str:
    write_sum_model(folder / "many" / "one.onnx")
    write_sum_model(folder / "one.onnx")
    models: dict[str, Mapping[str, Any]] = {
        "many": {"ModelDataUrl": "many/", "Mode": "MultiModel"},
        "one": {"ModelDataUrl": "one.onnx"},
    }
    endpoints = {"many": [variant("many")], "one": [variant("one", "a", weight=3.0), variant("one", "b")]}
    return str(declare(folder / "e.yaml", endpoints, models))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The system's browser, or Playwright's own where ``CHROMIUM`` names none."""
    with sync_api.sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM") or next(iter(_known()), None)
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


def _known() -> list[str]:
    return [path for path in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(path).exists()]


@contextmanager
def opened(chromium: Any, url: str, path: str, alive: bool = True, expected: str = "", **options: Any) -> Iterator[Any]:
    """A page in a browser of its own. It may say nothing on the console but ``expected``, and ask no other host for
    anything."""
    context = chromium.new_context(**options)
    page, said, hosts = context.new_page(), [], set()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    try:
        page.goto(url + path)
        if alive:
            page.wait_for_selector(ALIVE)
        yield page
        surprising = [one for one in said if not expected or expected not in one]
        assert ([], {urlsplit(url).netloc}) == (surprising, hosts)
    finally:
        context.close()


def send(server: Server, endpoint: str, count: int = 1, model: str = "") -> None:
    """Some calls."""
    headers = {"Content-Type": "text/csv"} | ({"X-Amzn-SageMaker-Target-Model": model} if model else {})
    with server.client() as calling:
        for _ in range(count):
            calling.post(f"/endpoints/{endpoint}/invocations", content=ROW, headers=headers)


@pytest.mark.parametrize("path", [OVERVIEW, ENDPOINT])
def test_a_page_comes_alive(server: Server, chromium: Any, path: str) -> None:
    """Its charts are drawn, its controls are there, without an error and without a word to any other host."""
    with opened(chromium, server.url, path) as page:
        for chart in page.locator("[data-chart]").all():
            chart.locator("canvas").wait_for()
        assert page.locator("#pause").is_visible()
        assert page.locator("#theme").is_visible()
        assert "Live" == page.locator("#live").inner_text()


def test_charts_are_drawn_from_what_happens(server: Server, chromium: Any) -> None:
    """Calls that are sent while one looks appear: in the legend, in the table of numbers, and as another drawing."""
    with opened(chromium, server.url, ENDPOINT) as page:
        chart = page.locator("[data-chart=traffic]")
        page.locator("[data-chart=traffic] canvas").wait_for()
        before = chart.locator("canvas").evaluate("canvas => canvas.toDataURL()")
        chart.locator("xpath=following-sibling::details").locator("summary").click()
        send(server, "one", 40)
        told = chart.locator("xpath=following-sibling::details").locator("td:last-child")
        sync_api.expect(told.filter(has_text=SOME).first).to_be_visible(timeout=20_000)
        assert before != chart.locator("canvas").evaluate("canvas => canvas.toDataURL()")


def test_the_form_is_filled_and_sent_by_keyboard_alone(server: Server, chromium: Any) -> None:
    """From the top of the page with Tab, typing, and Enter on the button; the answer is where one is then, receipt and
    all, and the next call goes by Ctrl+Enter. (That it is refused, the browser says on its console by itself.)"""
    with opened(chromium, server.url, ENDPOINT, expected="status of 424") as page:
        tab_to(page, "try-variant")
        page.keyboard.press("ArrowDown")
        tab_to(page, "try-body")
        page.keyboard.type(ROW)
        tab_to(page, "", "document.activeElement.textContent === 'Send'")
        page.keyboard.press("Enter")
        page.wait_for_selector("#try-answer pre")
        answer = page.locator("#try-answer").inner_text()
        for words in ("200 OK", '"predictions"', "30", "variant a", "predict", "request "):
            assert words in answer
        assert "try-answer" == page.evaluate("document.activeElement.id")
        page.locator("#try-body").fill("1,2")
        page.locator("#try-body").press("Control+Enter")
        page.wait_for_selector("#try-answer .badge.bad")
        assert "ModelError" in page.locator("#try-answer").inner_text()


def tab_to(page: Any, id: str, fact: str = "") -> None:
    """Press Tab until an element has the focus."""
    fact = fact or f"document.activeElement.id === {json.dumps(id)}"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(fact):
            return
    raise AssertionError(f"{id or fact} is not reached by Tab")


@pytest.mark.parametrize("path", [OVERVIEW, ENDPOINT])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{"width": 1280, "height": 900}, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing(
    server: Server, chromium: Any, axe: Callable[[Any], list[str]], path: str, scheme: str, size: dict[str, int]
) -> None:
    """Contrast, names, roles, headings, landmarks (axe-core's rules): in both themes, with calls on the page."""
    send(server, "one", 3)
    send(server, "many", 1, "one.onnx")
    with opened(chromium, server.url, path, color_scheme=scheme, viewport=size) as page:
        page.locator("canvas").first.wait_for()
        for details in page.locator("details").all():
            details.locator("summary").click()
        assert [] == axe(page)


@pytest.fixture(scope="module")
def axe() -> Callable[[Any], list[str]]:
    """What axe-core has to say against a page: rule and element, one line each."""
    library = pytest.importorskip("axe_playwright_python.base", reason="python -m tests.browser installs it")
    source = (Path(library.__file__).parent / "axe.min.js").read_text()

    def run(page: Any) -> list[str]:
        page.evaluate(source)
        found = page.evaluate("axe.run()")["violations"]
        return [f"{rule['id']}: {node['html'][:120]}" for rule in found for node in rule["nodes"]]

    return run


@pytest.mark.parametrize("path", [OVERVIEW, ENDPOINT, "/console/endpoints/many"])
def test_a_phone_needs_no_sideways_scrolling(server: Server, chromium: Any, path: str) -> None:
    """Whatever is on the page, however it is turned."""
    send(server, "one", 3)
    with opened(chromium, server.url, path, viewport=PHONE) as page:
        page.locator("canvas").first.wait_for()
        for width, height in ((360, 740), (740, 360)):
            page.set_viewport_size({"width": width, "height": height})
            assert width >= page.evaluate("document.documentElement.scrollWidth")


def test_a_chosen_theme_is_kept(server: Server, chromium: Any) -> None:
    """Over a reload, before anything is painted; else the system's is shown."""
    with opened(chromium, server.url, OVERVIEW, color_scheme="dark") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(ground)
        assert "Light theme" == page.locator("#theme").inner_text()
        page.locator("#theme").press("Enter")
        light = page.evaluate(ground)
        assert dark != light
        page.reload()
        page.wait_for_selector(ALIVE)
        assert light == page.evaluate(ground)


def test_tables_are_there_without_script(server: Server, chromium: Any) -> None:
    """And the search works; the form gives way to curl."""
    with opened(chromium, server.url, OVERVIEW, alive=False, java_script_enabled=False) as page:
        assert 2 == page.locator("#endpoints tbody th").count()
        page.locator("#q").fill("man")
        page.get_by_role("button", name="Find").click()
        assert "many" == page.locator("#endpoints tbody th a").inner_text()
        page.locator("#endpoints tbody th a").click()
        assert "many" == page.locator("h1").inner_text()
        assert not page.locator("#try-form").is_visible()
        assert page.get_by_text("The same with curl").is_visible()


def test_a_hostile_name_runs_nothing(server: Server, chromium: Any) -> None:
    """A caller names a model as if it were markup; whoever looks sees the text."""
    with opened(chromium, server.url, "/console/endpoints/many") as page:
        send(server, "many", 1, HOSTILE)
        page.get_by_text(HOSTILE).first.wait_for(timeout=20_000)
        assert 0 == page.locator("main img").count()


def test_a_page_that_is_paused_asks_nothing(server: Server, chromium: Any) -> None:
    """And goes on where it was when told to."""
    with opened(chromium, server.url, OVERVIEW, alive=False) as page:
        page.clock.install()
        page.reload()
        page.wait_for_selector(ALIVE)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.locator("#pause").press("Enter")
        page.clock.fast_forward(60_000)
        assert ("Paused", "true", []) == (
            page.locator("#live").inner_text(),
            page.locator("#pause").get_attribute("aria-pressed"),
            asked,
        )
        with page.expect_response("**/console?*"):
            page.locator("#pause").press("Enter")


def test_what_has_the_focus_keeps_it(server: Server, chromium: Any) -> None:
    """New numbers change a table under the reader's hands, not the place he is at."""
    with opened(chromium, server.url, OVERVIEW) as page:
        page.locator("#endpoints tbody a").first.focus()
        send(server, "one", 5)
        with page.expect_response("**/console?*", timeout=20_000):
            pass
        sync_api.expect(page.locator("[data-tile=calls] dd").first).to_have_text(SOME, timeout=20_000)
        assert "A" == page.evaluate("document.activeElement.tagName")


def test_a_browser_that_knows_a_key_sees_everything(tmp_path: Path, chromium: Any) -> None:
    """HTTP Basic, asked for once; the page's own questions and calls carry it."""
    keys = [{"AccessKeyId": "admin", "SecretAccessKey": SECRET, "Permissions": ["*"]}]
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    environment = {"SERVING_ACCESS_KEYS": str(tmp_path / "keys.json")}
    shown = {"username": "admin", "password": SECRET}
    with (
        serve(tmp_path, "--config", _config(tmp_path), environment=environment) as server,
        opened(chromium, server.url, ENDPOINT, http_credentials=shown) as page,
    ):
        page.locator("#try-body").fill(ROW)
        page.get_by_role("button", name="Send").click()
        page.wait_for_selector("#try-answer pre")
