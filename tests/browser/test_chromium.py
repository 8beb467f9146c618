"""The page in a real browser: every view, both kinds of people, a lost gateway, a thousand tags.

Run by ``make test-browser``. Playwright's own loop is not ours: the agent runs in a thread.
"""

import asyncio
import os
import re
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from agent.config.journal import JournalConfig
from agent.core.batch import Batch
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.runtime.clock import SystemClock, machine_id
from agent.storage.db import open_store
from simulators.agent_process import AgentProcess
from simulators.modbus_server import ModbusServer
from simulators.models import tiny
from simulators.registry_server import RegistryServer
from tests.agents import Counting, configure, device, told
from tests.integration.test_page import GOOD, code_of
from tests.models_bench import MODEL
from tests.tools import until

pytestmark = pytest.mark.skipif(
    "EDGE_AGENT_CHROMIUM" not in os.environ, reason="needs Chromium: make test-browser"
)

VIEWS = ("overview", "devices", "tags", "alarms", "models", "uplink", "config", "logs", "downloads")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


class Gateway:
    """An agent with a page, in a loop of its own.

    Attributes:
        image: What its device holds.
        config: Its configuration file.
    """

    def __init__(self, folder, tags=None, **sections):
        self.folder, self.image, self._tags = folder, Counting(), tags
        self._sections = sections
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self):
        self._thread.start()
        self.do(self._start())
        return self

    def __exit__(self, *exc):
        self.do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, job):
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(60)

    async def _start(self):
        self.server = await ModbusServer({1: self.image}).__aenter__()
        more = {} if self._tags is None else {"tags": self._tags, "poll": "1s"}
        self.config = configure(
            self.folder,
            devices={"d": device(self.server.url, **more)},
            alarms={"many": {"tag": "d/n", "high": 2, "text": "Many reads 한글 °C"}},
            web={"listen": f"127.0.0.1:{self.port}"},
            **self._sections,
        )
        await self.boot()

    async def boot(self, *, alarms=True):
        self.agent = await AgentProcess(self.config).__aenter__()
        await told(self.agent, lambda s: s["alarms"] or not alarms)
        await until(self._listens, 30)

    async def _listens(self):
        """An alarm that stands is there before the page is."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    async def halt(self):
        await self.agent.__aexit__(None, None, None)

    async def _end(self):
        await self.halt()
        await self.server.__aexit__(None, None, None)


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - not everybody has it

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=os.environ["EDGE_AGENT_CHROMIUM"], args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with Gateway(tmp_path_factory.mktemp("gateway")) as one:
        yield one


@contextmanager
def tab(chromium, **options):
    """A tab that notes what went wrong in it and whom it asked."""
    context = chromium.new_context(**options)
    one = context.new_page()
    one.wrong, one.asked = [], set()
    one.on("console", lambda m: one.wrong.append(m.text) if m.type == "error" else None)
    one.on("pageerror", lambda e: one.wrong.append(str(e)))
    one.on("request", lambda r: one.asked.add(r.url.split("/")[2]))
    yield one
    context.close()


def enter(one, gateway, role):
    """Make an account with a one-time code, by hand."""
    one.goto(gateway.url)
    one.get_by_role("button", name="Log in").click()
    code = code_of(gateway.config, role)
    box = one.get_by_role("dialog")
    if not box.get_by_label("One-time code").is_visible():
        box.get_by_text("I have a one-time code").click()
    form = box.locator("form").last
    form.get_by_label("One-time code").fill(code)
    form.get_by_label("Name").fill(role)
    form.get_by_label("Password").fill(GOOD)
    form.get_by_role("button", name="Make an account").click()
    one.get_by_role("button", name=f"Log out {role}").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_for_everybody(chromium, gateway, scheme):
    """No error, nothing asked of anybody but the gateway, and axe finds nothing."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415

    with tab(chromium, color_scheme=scheme) as one:
        for view in VIEWS:
            one.goto(f"{gateway.url}/#{view}")
            one.locator("#strip .state").first.wait_for()
            one.locator("main h1").wait_for()
            found = Axe().run(one)
            rules = [(v["id"], v["nodes"][0]["html"][:120]) for v in found.response["violations"]]
            assert rules == [], view
        assert one.wrong == []
        assert one.asked == {f"127.0.0.1:{gateway.port}"}


def test_on_a_phone_nothing_sticks_out(chromium, gateway):
    """360 pixels wide: a row of a table is a card, each cell of it is on the screen."""
    with tab(chromium, viewport={"width": 360, "height": 640}) as one:
        for view in VIEWS:
            one.goto(f"{gateway.url}/#{view}")
            one.locator("main h1").wait_for()
            assert one.evaluate("document.documentElement.scrollWidth") <= 360, view
            edges = "(cells) => cells.map((c) => c.getBoundingClientRect().right)"
            assert max(one.locator("main td").evaluate_all(edges), default=0) <= 360, view


@pytest.mark.parametrize("width", [360, 1280])
def test_a_dead_sensor_is_seen_at_a_glance(chromium, tmp_path, width):
    """The first view names the tag, its quality and what the device says; one click says why."""
    with Gateway(tmp_path) as own, tab(chromium, viewport={"width": width, "height": 800}) as one:
        own.image.hole = range(2, 4)
        one.goto(own.url)
        dead = one.locator("main .card", has_text="Tags without a usable value")
        dead.get_by_text("bad_config").wait_for()
        assert dead.get_by_role("button").first.text_content() == "d/temp"
        one.get_by_text("illegal data address").first.wait_for()
        dead.get_by_role("button", name="Why").click()
        one.get_by_role("dialog").get_by_text("holding, wire 2").first.wait_for()
        assert one.wrong == []


def test_by_keyboard(chromium, gateway):
    """The first stop skips to the content; a view and a trend open with Enter, Escape closes."""
    with tab(chromium) as one:
        one.goto(f"{gateway.url}/#tags")
        one.get_by_role("button", name="d/temp", exact=True).wait_for()
        one.keyboard.press("Tab")
        assert one.evaluate("document.activeElement.textContent") == "Skip to content"
        one.get_by_role("button", name="d/temp", exact=True).focus()
        one.keyboard.press("Enter")
        one.locator("dialog canvas").wait_for()
        one.keyboard.press("Escape")
        assert not one.get_by_role("dialog").is_visible()
        assert one.wrong == []


def test_a_viewer_has_no_buttons_and_a_technician_acknowledges(chromium, gateway):
    """What somebody may not do is not offered; what is done is seen within seconds."""
    with tab(chromium) as one:
        one.goto(f"{gateway.url}/#alarms")
        row = one.locator("main tr", has_text="many")
        row.get_by_text("Many reads 한글 °C").wait_for()
        assert row.get_by_role("button").count() == 0
        enter(one, gateway, "technician")
        one.goto(f"{gateway.url}/#alarms")
        row.get_by_role("button", name="Acknowledge").click()
        row.get_by_text("(ack)").wait_for()
        one.goto(f"{gateway.url}/#config")
        assert one.get_by_role("button", name="Apply the file").count() == 0
        assert one.wrong == []


def test_an_admin_checks_a_draft_and_applies_the_file(chromium, gateway):
    """The plan names what would change and what consumers would miss; a mistake its line."""
    with tab(chromium) as one:
        enter(one, gateway, "admin")
        one.goto(f"{gateway.url}/#config")
        text = gateway.config.read_text()
        for draft, seen in (
            (text.replace('"50ms"', '"90ms"'), "poll 50ms -> 90ms"),
            (text.replace('"temp"', '"heat"'), "tag d/temp vanishes"),
            (text.replace('"poll"', '"pol"'), "did you mean `poll`?"),
        ):
            one.get_by_label("Draft").fill(draft)
            one.get_by_role("button", name="Check and plan").click()
            one.get_by_text(re.compile(re.escape(seen))).first.wait_for()
        gateway.config.write_text(text.replace('"50ms"', '"60ms"'))
        one.get_by_role("button", name="Apply the file").click()
        one.get_by_text('"source/d"').wait_for()
        gateway.config.write_text(text)
        assert one.wrong == []


@pytest.mark.parametrize(
    ("locale", "title"), [("en-US", "cannot be used"), ("ko-KR", "쓸 수 없음")]
)
def test_a_configuration_that_cannot_be_used(chromium, tmp_path, locale, title):
    """The errors with line and caret, a draft that is checked, and the usual page as soon as the
    agent has a sound file: nobody loads the page anew.
    """
    with Gateway(tmp_path) as own, tab(chromium, locale=locale) as one:
        own.do(own.halt())
        sound = own.config.read_text()
        good = own.config.parent / "data" / "last-good.yaml"
        good.write_text(good.read_text().replace('"devices"', '"devises"'))
        own.config.write_text(sound.replace('"poll"', '"pol"'))
        own.do(own.boot(alarms=False))
        one.goto(own.url)
        one.get_by_role("heading", name=re.compile(title)).wait_for()
        one.get_by_text(re.compile(r"did you mean `poll`")).first.wait_for()
        assert "^^^" in one.locator("main pre").first.text_content()
        assert one.locator("nav a").count() == 3
        one.locator("#draft").fill(sound.replace('"unit"', '"unti"'))
        one.locator("button", has_text=re.compile("Check|검사")).click()
        one.get_by_text(re.compile(r"did you mean `unit`")).first.wait_for()
        own.config.write_text(sound)
        own.do(own.agent.ask("reload"))
        one.locator("nav a[href='#tags']").wait_for(timeout=20_000)
        assert one.wrong == [] or all("ERR_" in text for text in one.wrong)


def test_what_can_be_taken_away(chromium, gateway):
    """Samples as CSV, and for an admin the diagnostic archive."""
    with tab(chromium) as one:
        one.goto(gateway.url)
        one.locator("#strip .state").first.wait_for()
        one.get_by_role("link", name="Downloads").click()
        one.get_by_label("Tags", exact=True).select_option("d/n")
        with one.expect_download() as begun:
            one.get_by_role("button", name="CSV").click()
        lines = begun.value.path().read_text().splitlines()
        assert len(lines) > 3
        assert "d/n" in lines[1]


def test_a_gateway_that_is_lost_and_comes_back(chromium, tmp_path):
    """The page says so at once and goes on by itself; nothing looks live meanwhile."""
    with Gateway(tmp_path) as own, tab(chromium) as one:
        one.goto(f"{own.url}/#tags")
        one.get_by_role("button", name="d/n", exact=True).wait_for()
        own.do(own.halt())
        one.locator(".lost").wait_for(timeout=10_000)
        own.do(own.boot())
        one.locator("#strip .state").first.wait_for(timeout=30_000)
        assert not one.locator(".lost").is_visible()


def test_a_thousand_tags_without_jank(chromium, tmp_path, record_property):
    """1,000 tags at 1 Hz for ten seconds: the page answers to a finger within 100 ms (RAIL)."""
    tags = {f"t{i:03}": {"reg": 4 + i, "as": "uint16"} for i in range(998)}
    tags |= {"n": {"reg": 0, "as": "uint32"}, "temp": {"reg": 2, "as": "float32"}}
    with Gateway(tmp_path, tags) as own, tab(chromium) as one:
        one.goto(f"{own.url}/#tags")
        one.get_by_role("button", name="d/t997", exact=True).wait_for(timeout=20_000)
        gaps = one.evaluate("""() => new Promise((done) => {
            const gaps = [], end = performance.now() + 10_000;
            let last = performance.now();
            const tick = (now) => {
                gaps.push(now - last); last = now;
                now < end ? requestAnimationFrame(tick) : done(gaps.sort((a, b) => a - b));
            };
            requestAnimationFrame(tick);
        })""")
        moved = one.locator("main tr", has_text="d/n").first.locator("td").nth(1)
        before = moved.text_content()
        one.wait_for_function("(t) => !document.body.textContent.includes(t)", arg=f"d/n{before}")
        worst, p99 = gaps[-1], gaps[int(0.99 * len(gaps))]
        record_property("frame_gap_ms", {"p99": p99, "worst": worst})
        assert p99 <= 100
        assert one.wrong == []


def test_a_trend_over_a_hundred_thousand_points(chromium, tmp_path, record_property):
    """The store thins them: drawn within two seconds of the click."""
    with Gateway(tmp_path) as own:
        own.do(own.halt())
        own.do(stored(own.config.parent / "data", 100_000))
        own.do(own.boot())
        with tab(chromium) as one:
            one.goto(f"{own.url}/#tags")
            one.get_by_role("button", name="d/temp", exact=True).wait_for()
            started = time.monotonic()
            one.get_by_role("button", name="d/temp", exact=True).click()
            one.locator("dialog [role=status]", has_text="samples").wait_for()
            took_s = time.monotonic() - started
            told_ = one.locator("dialog [role=status]").text_content()
            assert int(told_.split()[0]) >= 100_000
            record_property("trend_100k_s", round(took_s, 2))
            assert took_s <= 2.0


KEEP_PLOTS = """() => {
    const Real = window.uPlot;
    window.plots = [];
    window.uPlot = function (...given) { window.plots.push(new Real(...given)); };
}"""
PIXELS = """(canvas) => {
    const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const seen = { red: 0, blue: 0 };
    for (let i = 0; i < all.length; i += 4) {
        if (all[i + 3] < 32) continue;
        if (all[i] > all[i + 2] + 60) seen.red += 1;
        if (all[i + 2] > all[i] + 60) seen.blue += 1;
    }
    return seen;
}"""


def test_a_back_test_is_drawn(chromium, tmp_path):
    """A version in shadow over what the journal holds, beside what serves: the plot has the very
    numbers that the agent gave, and a line of its own colour for each of the two.
    """
    model = MODEL | {"instances": {"d": {"inputs": ["d/n", "d/temp"]}}}
    with RegistryServer() as registry:
        registry.publish("m", "1", tiny())
        sections = {"models": {"m": model}, "rollout": {"shadow": "1h"},
                    "registries": {"main": {"type": "http", "url": registry.url,
                                            "unsigned": "accept"}}}  # fmt: skip
        with Gateway(tmp_path, **sections) as own, tab(chromium) as one:
            own.do(told(own.agent, lambda s: s["models"]["d"]["state"] == "active"))
            own.do(own.halt())
            own.do(stored(own.config.parent / "data", 7200, every_s=60))
            own.do(own.boot())
            registry.publish("m", "2", tiny(0.4))
            own.do(own.agent.ask("models.pull", name="m"))
            enter(one, own, "admin")
            one.goto(f"{own.url}/#models")
            one.evaluate(KEEP_PLOTS)
            with one.expect_response("**/api/models.backtest") as asked:
                one.get_by_role("button", name="Back-test").click()
            one.locator("dialog canvas").wait_for()
            told_ = asked.value.json()
            (series,) = told_["series"]
            assert (told_["candidate"]["version"], told_["champion"]["version"]) == ("2", "1")
            assert len(series["t_ns"]) > 50
            t, champion, candidate = one.evaluate("window.plots.at(-1).data.map((d) => [...d])")
            assert t == [ns / 1e9 for ns in series["t_ns"]]
            assert (champion, candidate) == (series["champion"], series["candidate"])
            assert max(champion) > 2 * max(candidate) > 1000
            seen = one.locator("dialog canvas").evaluate(PIXELS)
            assert min(seen.values()) > 400, seen
            assert one.wrong == []


async def stored(folder, rows, every_s=0.25):
    """*rows* of device ``d`` in the journal in *folder*, one each *every_s* until now."""
    tags = TagSet((Tag("d/n"), Tag("d/temp")))
    t = time.time_ns() - np.arange(rows, 0, -1) * round(every_s * 1e9)
    v = np.stack([np.arange(rows), np.sin(np.arange(rows) / 500)], 1).astype(float)
    limits = JournalConfig.model_validate({})
    async with open_store(folder, limits, SystemClock(), Stats(), machine_id()) as store:
        for i in range(0, rows, 600):
            part = slice(i, i + 600)
            q = np.full(v[part].shape, Quality.GOOD, np.uint8)
            store.journal.put(Batch("d", tags, t[part], v[part], q))
            await store.journal.flush()
