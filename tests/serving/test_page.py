"""The page in a real browser: type, turn the dial, see tokens arrive tinted by their steps; and nothing said becomes HTML."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .test_server import Running, folder  # noqa: F401 (a fixture)

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium here")]
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:  # noqa: F811
    running = Running(folder)
    yield running
    running.close()


@pytest.fixture
def page(server: Running) -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=QUIET)
        page = browser.new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(server.url)
        expect(page.locator("#model")).to_have_text("tiny")
        page.locator("#question").fill("Hello?")
        page.locator("summary").click()
        yield page
        browser.close()


def test_tokens_arrive_tinted_by_the_steps_of_the_dial(page) -> None:
    for place, steps in ((0, 1), (3, 8)):
        page.locator("#steps").fill(str(place))
        assert page.locator("#shown").inner_text() == str(steps)
        page.locator("#tokens").fill("20")
        page.locator("#go").click()
        expect(page.locator("#account")).to_contain_text(f"{steps}.0 a token", timeout=30000)
        tints = set(page.locator("#answer span").evaluate_all("all => all.map(one => one.className)"))
        assert tints == {f"t{place}"}
    assert page.complaints == []


def test_what_is_said_is_text_and_never_html(page) -> None:
    """A server that says markup: the page shows it, and makes nothing of it."""
    said = "<img src=x onerror=document.title='caught'><script>document.title='caught'</script>"
    chunk = {"choices": [{"index": 0, "delta": {"content": said}, "steps": [3]}]}
    body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body))
    page.locator("#go").click()
    page.wait_for_selector("#answer span")
    assert page.locator("#answer").inner_text() == said
    assert page.locator("#answer img").count() == page.locator("#answer script").count() == 0
    assert page.title() == "latentweaver"


def test_it_can_be_sent_from_the_keyboard_and_stopped(page) -> None:
    page.locator("#steps").fill("3")
    page.locator("#tokens").fill("150")
    page.locator("#question").press("Control+Enter")
    expect(page.locator("#halt")).to_be_enabled()
    page.locator("#answer span").first.wait_for()
    page.locator("#halt").click()
    expect(page.locator("#go")).to_be_enabled()
    assert page.locator("#account").inner_text() == ""
    assert page.complaints == []


def test_errors_are_shown(page) -> None:
    page.locator("#tokens").fill("1000")
    page.locator("#go").click()
    expect(page.locator("#account")).to_contain_text("together at most")
