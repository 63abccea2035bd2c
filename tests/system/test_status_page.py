"""The status page in a real browser: it shows the run, updates itself, and shows no value."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.contenders.pipeline import command
from benchmarks.pictures import find_chromium
from sqs2pg.cli.embedded.child_process import reserve_port
from tests.acceptance.pipeline_set import PipelineSet
from tests.local_aws import aws_client, aws_variables
from tests.logins import CANARIES, canary_login
from tests.logins import send as send_bodies
from tests.shell import Shell, bare_environment
from tests.waiting import answer_of, wait_until

if TYPE_CHECKING:  # its package is installed by `make test-system` alone
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.system

WAIT_MS = 120_000
"""Longest wait for what the page is to show; for a busy machine, not for the page."""


@dataclass
class Running:
    """A pipeline that runs, and the page's address; it may be stopped and started again."""

    shell: Shell
    port: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            command("run"), cwd=self.shell.folder, env=self.environment, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: answer_of(f"{self.address}/livez"), during=self.process)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(60) == 0


@dataclass
class Seen:
    """A page, with its console errors and its requests to other sites."""

    page: Page
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield opened
        opened.close()


@pytest.fixture
def running(tmp_path: Any, database: str, sqs_endpoint: str, queue_url: str) -> Iterator[Running]:
    """One pipeline with its status page."""
    environment = bare_environment() | {
        "DATABASE_URL": database,
        **aws_variables(sqs_endpoint),
        "SQS2PG_SOURCE__QUEUE": queue_url.rsplit("/", 1)[-1],
        "SQS2PG_SOURCE__WAIT_TIME_S": "1",
        "SQS2PG_KEYS__FILE": str(tmp_path / "sqs2pg.keys"),
        "SQS2PG_STATUS__POLL_S": "0.3",
    }
    shell = Shell(tmp_path, environment)
    shell("keys", "init")
    shell("migrate")
    hold = reserve_port()
    port = hold.getsockname()[1]
    made = Running(shell, port, environment | {"SQS2PG_STATUS__BIND": f"127.0.0.1:{port}"})
    made.start()
    yield made
    assert made.process is not None
    if made.process.poll() is None:
        made.stop()
    hold.close()


@pytest.fixture
def send(sqs_endpoint: str, queue_url: str) -> Callable[[list[str]], None]:
    sqs = aws_client(
        "sqs",
        sqs_endpoint,
    )

    return lambda bodies: send_bodies(sqs, queue_url, bodies)


@pytest.fixture
def seen(browser: Browser, running: Running) -> Iterator[Seen]:
    """The page, open and live."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    found = Seen(page)
    page.on("console", lambda m: found.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on(
        "request",
        lambda r: None if r.url.startswith(running.address) else found.elsewhere.append(r.url),
    )
    page.goto(running.address)
    expect(page.locator("body[data-live]")).to_be_attached()
    yield found
    context.close()


def expect(what: Any) -> Any:
    """Playwright's assertion that waits."""
    from playwright.sync_api import expect as expect_of_playwright

    expect_of_playwright.set_options(timeout=WAIT_MS)
    return expect_of_playwright(what)


def text(page: Page) -> str:
    return page.content() + page.inner_text("body")


def test_the_page_shows_the_run_goes_on_by_itself_and_says_no_value(
    seen: Seen, running: Running, send: Callable[[list[str]], None]
) -> None:
    page = seen.page
    expect(page.locator("#pill-text")).to_contain_text("running")
    send([canary_login(i) for i in range(40)])
    expect(page.locator("#legend [data-k=written] dd")).to_have_text(re.compile("^40"))
    # Live: no reload in between.
    send([canary_login(i) for i in range(40, 60)] + ["not json " + CANARIES[1]] * 3)
    expect(page.locator("#legend [data-k=written] dd")).to_have_text(re.compile("^60"))
    expect(page.locator("#legend [data-k=quarantined] dd")).to_have_text(re.compile("^3"))
    expect(page.locator("#faults")).to_contain_text("not_json")
    expect(page.locator("#quarantine")).to_contain_text("sqs2pg quarantine replay --code not_json")
    expect(page.locator("#workers tr")).to_have_count(1)
    expect(page.locator("#workers")).to_contain_text("running")
    expect(page.locator("#checks li.bad")).to_have_count(0)
    expect(page.locator(".chart canvas")).to_have_count(4)
    for value in CANARIES:
        assert value not in text(page)
    state = page.evaluate("fetch('/state').then(answer => answer.text())")
    assert '"written":60' in state
    for value in CANARIES:
        assert value not in state
    assert seen.errors == []
    assert seen.elsewhere == [], "everything is served by the process itself"


def test_a_code_leads_to_its_meaning_and_masked_rows_are_shown_if_asked_for(
    browser: Browser, running: Running, send: Callable[[list[str]], None]
) -> None:
    running.stop()
    token = "a-token-for-the-page"
    running.environment |= {"SQS2PG_STATUS__TOKEN": token, "SQS2PG_STATUS__TAP": "true"}
    running.start()
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(running.address)
    page.fill("input[name=token]", token)
    page.keyboard.press("Enter")
    expect(page.locator("body[data-live]")).to_be_attached()
    expect(page.locator("#tap-rows")).to_be_hidden()
    page.click("#tap-toggle")
    expect(page.locator("#tap")).to_contain_text("no row yet")
    send([canary_login(1), "not json " + CANARIES[1]])
    expect(page.locator("#tap")).to_contain_text("masked_ip=")
    expect(page.locator("#tap")).to_contain_text("public.user_logins")
    assert page.evaluate(OVERFLOW, 390) <= 0
    # The user's id is kept by the mapping; address and device are masked.
    assert not any(value in text(page) for value in CANARIES[1:])
    link = page.locator("#faults a")
    expect(link).to_have_text("not_json")
    link.click()
    expect(page.locator("tr:target")).to_contain_text("not_json")
    assert page.evaluate(OVERFLOW, 390) <= 0
    context.close()


def test_the_command_on_the_page_is_one_that_works(
    seen: Seen, running: Running, send: Callable[[list[str]], None]
) -> None:
    send(["not json"])
    shown = seen.page.locator("#quarantine code").nth(1)
    expect(shown).to_contain_text("quarantine replay")
    program, *arguments = shown.inner_text().split()
    assert program == "sqs2pg"
    running.shell(*arguments, code=None)
    assert "error: no such" not in running.shell.transcript[-1]
    assert "usage" not in running.shell.transcript[-1].lower()


def test_a_restart_of_the_pipeline_is_survived(
    seen: Seen, running: Running, send: Callable[[list[str]], None]
) -> None:
    page = seen.page
    send([canary_login(i) for i in range(10)])
    expect(page.locator("#legend [data-k=written] dd")).to_have_text(re.compile("^10"))
    running.stop()
    expect(page.locator("#pill")).to_have_attribute("data-state", "bad")
    expect(page.locator("#pill-text")).to_contain_text("no answer")
    running.start()
    expect(page.locator("#pill")).to_have_attribute("data-state", "good")
    send([canary_login(i) for i in range(10, 17)])
    expect(page.locator("#legend [data-k=written] dd")).to_have_text(re.compile("^7"))
    # The browser itself reports an address that does not answer; our page reports no error.
    assert [e for e in seen.errors if "Failed to load resource" not in e] == []


# The charts are drawn again once a new width is laid out: looked at frame by frame, for 10 s at
# most. The page's own policy forbids wait_for_function to look more than once.
OVERFLOW = """width => new Promise(resolve => {
    const began = performance.now();
    const look = () => {
        const overflow = document.documentElement.scrollWidth - innerWidth;
        const fits = innerWidth === width && overflow <= 0;
        if (fits || performance.now() - began > 10_000) resolve(overflow);
        else requestAnimationFrame(look);
    };
    look();
})"""


def test_the_page_is_usable_by_keyboard_and_on_a_phone(seen: Seen) -> None:
    page = seen.page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    reached: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.dataset.range || document.activeElement.className"
            )
        )
    assert {"60", "300", "1800", "scroll"} <= set(reached)
    page.locator("[data-range='60']").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-range='60']")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("[data-range='300']")).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".chart canvas")).to_have_count(4)
    page.locator("#theme").focus()
    for expected in ("light", "dark", None):
        page.keyboard.press("Enter")
        assert page.evaluate("document.documentElement.dataset.theme ?? null") == expected
    for width in (390, 320):
        page.set_viewport_size({"width": width, "height": 800})
        overflow = page.evaluate(OVERFLOW, width)
        assert page.evaluate("innerWidth") == width
        assert overflow <= 0, f"{overflow}px too wide at {width}"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, a, [role=img], [role=region], input')]"
        ".filter(n => !(n.getAttribute('aria-label') || n.getAttribute('aria-labelledby')"
        " || n.textContent.trim())).length"
    )
    assert unnamed == 0
    assert seen.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, running: Running, scheme: str) -> None:
    """Contrast of the colours in use: 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(running.address)
    ratios = page.evaluate(
        """() => {
          const style = getComputedStyle(document.documentElement);
          const light = (name) => {
            const hex = style.getPropertyValue('--' + name).trim().slice(1);
            const c = [0, 2, 4].map(i => parseInt(hex.slice(i, i + 2), 16) / 255)
              .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
          };
          const pairs = [['ink', 'ground'], ['ink', 'card'], ['soft', 'card'], ['soft', 'ground'],
            ['soft', 'faint'], ['written', 'card'], ['quarantined', 'card'],
            ['good', 'good-ground'], ['bad', 'bad-ground'], ['warn', 'warn-ground'],
            ['receive', 'faint'], ['decode', 'faint'], ['mask', 'faint'], ['write', 'faint']];
          return Object.fromEntries(pairs.map(([a, b]) => {
            const [x, y] = [light(a), light(b)].sort((m, n) => n - m);
            return [a + ' on ' + b, (x + 0.05) / (y + 0.05)];
          }));
        }"""
    )
    context.close()
    assert {pair: round(ratio, 2) for pair, ratio in ratios.items() if ratio < 4.5} == {}


def test_with_a_token_the_form_comes_first(browser: Browser, running: Running) -> None:
    running.stop()
    token = "a-token-of-some-length"
    running.environment["SQS2PG_STATUS__TOKEN"] = token
    running.start()
    context = browser.new_context()
    page = context.new_page()
    page.goto(running.address)
    page.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Token")).to_be_visible()
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    expect(page.locator("body[data-live]")).to_be_attached()
    assert token not in page.url
    context.close()


def test_the_list_of_pipelines_fits_a_desk_and_a_phone(
    browser: Browser, tmp_path: Any, database: str, sqs_endpoint: str
) -> None:
    environment = bare_environment() | {
        "DATABASE_URL": database,
        **aws_variables(sqs_endpoint),
        "SQS2PG_SOURCE__QUEUE": "",
        "SQS2PG_KEYS__FILE": str(tmp_path / "sqs2pg.keys"),
    }
    shell = Shell(tmp_path, environment)
    pipelines = PipelineSet(shell, aws_client("sqs", sqs_endpoint))
    shell("keys", "init")
    shell("migrate", *pipelines.options)
    shell("pause", *pipelines.options, "--pipeline", "logins")
    pipelines.add("zz-a-pipeline-with-a-long-name-that-is-not-migrated")
    with pipelines.running() as process:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        wait_until(lambda: pipelines.get("/livez")[0] == 200, during=process)
        page.goto(pipelines.address)
        # Those that need a look come first.
        expect(page.locator("#rows tr th")).to_have_text(
            ["zz-a-pipeline-with-a-long-name-that-is-not-migrated", "logins", "orders"]
        )
        expect(page.locator("#rows .shown").nth(0)).to_contain_text("migrate")
        expect(page.locator("#rows .shown").nth(1)).to_contain_text("paused since")
        expect(page.locator("#pill-text")).to_have_text("1 needs a look, 1 paused")
        card, main = (page.locator(name).bounding_box() for name in (".pipelines", "main"))
        assert card is not None
        assert main is not None
        assert card["width"] == main["width"]
        for width in (1280, 390, 320):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(OVERFLOW, width) <= 0
            cut = "[...document.querySelectorAll('.pipelines, .pipelines tr')]"
            cut += ".filter(one => one.scrollWidth > one.clientWidth + 1).length"
            assert page.evaluate(cut) == 0, width
            for cell in page.locator("#rows .shown").all():
                assert cell.is_visible()
        context.close()
        pipelines.stop(process)
