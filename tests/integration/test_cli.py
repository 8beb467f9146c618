"""The command line, as a person or a script runs it: a process, its output, its exit code."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.cli.main import main
from agent.cli.page import page
from agent.cli.table import age, records, table
from agent.config.journal import JournalConfig
from agent.core.alarms import AlarmEvent
from agent.core.errors import PermanentError
from agent.core.ports import Lane
from agent.core.requests import Verb
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from agent.runtime.control import Control, Peer
from agent.storage.db import open_store
from tests.tools import until

CHECKOUT = Path(__file__).resolve().parents[2]
NOW_NS = 1_700_000_000_000_000_000

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "state": "running",
    "reasons": [],
    "gateway": "hall1-gw1",
    "uptime_s": 93784.0,
    "config": {"path": "/etc/e.yaml", "digest": "ab12cd34ef56", "loaded_at": NOW_NS,
               "last_good": False},
    "clock": {"state": "synced", "wall_ns": NOW_NS},
    "devices": {"press1": {"state": "running", "connected": True, "endpoint": "tcp://10.0.0.5:502",
                           "last_error": "", "restarts": 0, "streams": ["press1/fast"]}},
    "tags": {
        "press1/oil_temp": {"value": 61.25, "unit": "degC", "q": "good", "ts_ns": NOW_NS,
                            "age_s": 0.4},
        "press1/flow": {"value": None, "unit": "l/min", "q": "bad_no_communication",
                        "ts_ns": NOW_NS, "age_s": 75.0},
    },
    "models": {"pump1": {"model": "pump", "version": "1.2.0", "release": 3, "digest": "aa",
                         "state": "active", "last_score": {"score": 0.125}, "last_ts_ns": NOW_NS,
                         "runs": 12, "p50_ms": 1.0, "p99_ms": 2.0, "error": ""}},
    "alarms": [{"alarm": "press1/hot", "tag": "press1/oil_temp", "since_ns": NOW_NS - 90 * 10**9,
                "priority": 3, "value": 91.0, "limit": 90.0, "text": "Oil too hot"}],
    "sinks": {"hq": {"state": "running", "connected": False, "depth": 1200, "oldest_age_s": 3720.0,
                     "window": 20, "last_error": "connection refused"}},
    "journal": {"durable": True, "epoch": 4, "lineage": "0a1b2c3d", "bytes": 1000000},
    "system": {"cpu_percent": 3.0, "rss_bytes": 80000000, "loop_p99_ms": 1.5},
}  # fmt: skip


class Agent:
    """A control socket that answers with what a test wants."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = dict(STATUS)
        self.reload: Any = {"added": ["source/press2"], "changed": [], "removed": ["model/old"]}

    def verbs(self) -> dict[str, Verb]:
        return {
            "status": Verb(self._status),
            "reload": Verb(self._reload, admin=True),
            "outbox": Verb(self._outbox),
            "models.list": Verb(self._models),
            "models.pull": Verb(self._pull, admin=True),
        }

    async def _status(self, args: Mapping[str, Any], peer: Peer) -> Any:
        return self.status

    async def _reload(self, args: Mapping[str, Any], peer: Peer) -> Any:
        return self.reload

    async def _outbox(self, args: Mapping[str, Any], peer: Peer) -> Any:
        return [{"sink": "hq", "owed": 1200, "oldest_age_s": 3720.0, "connected": False}]

    async def _models(self, args: Mapping[str, Any], peer: Peer) -> Any:
        return [{"name": "pump", "version": "1.2.0", "digest": "f" * 64}]

    async def _pull(self, args: Mapping[str, Any], peer: Peer) -> Any:
        raise PermanentError(f"there is no model `{args['name']}`", fix="Name one.", code="E640")


@asynccontextmanager
async def running(folder: Path, agent: Agent) -> AsyncIterator[Path]:
    path = folder / "control.sock"
    task = asyncio.create_task(Control(path, agent.verbs()).run())
    try:
        await until(lambda: path.exists() or task.done())
        yield path
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def edge_agent(
    *words: str | Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One run of the program."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("EDGE_AGENT", "RUNTIME_"))}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "agent", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=CHECKOUT,
        env=clean | dict(env or {}),
        check=False,
    )


async def test_status_shows_the_page_and_ends_with_0(tmp_path: Path) -> None:
    """A technician sees devices, values with age and quality, models, alarms and the uplink."""
    async with running(tmp_path, Agent()) as path:
        done = await edge_agent("status", "--socket", path)
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("hall1-gw1: running, up 1 d 2 h", "press1/oil_temp", "61.25", "degC", "0.4 s",
                 "bad_no_communication", "score=0.125", "Oil too hot", "1 min", "1 h 2 min",
                 "connection refused", "clock synced"):  # fmt: skip
        assert part in done.stdout
    assert "\x1b" not in done.stdout, "colours only on a terminal"


async def test_status_of_a_degraded_agent_ends_with_1(tmp_path: Path) -> None:
    """Degraded is exit code 1, with every reason on the page."""
    agent = Agent()
    agent.status |= {"state": "degraded", "reasons": ["sink hq: connection refused"]}
    async with running(tmp_path, agent) as path:
        done = await edge_agent("status", "--socket", path)
    assert done.returncode == 1
    assert "! sink hq: connection refused" in done.stdout


async def test_status_as_json_is_the_answer_itself(tmp_path: Path) -> None:
    """Programs get the same facts as JSON."""
    async with running(tmp_path, Agent()) as path:
        done = await edge_agent("status", "--json", env={"EDGE_AGENT_SOCKET": str(path)})
    assert json.loads(done.stdout) == STATUS


async def test_not_running_ends_with_3(tmp_path: Path) -> None:
    """No agent is exit code 3, with the next step and without a traceback."""
    done = await edge_agent("status", "--socket", tmp_path / "control.sock")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error[E775]: the agent does not run")
    assert "= help: Start it" in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_socket_is_found_by_the_data_dir_of_a_file(tmp_path: Path) -> None:
    """`--config FILE` is enough: its line data_dir leads to the socket, even if it is broken."""
    config = tmp_path / "edge.yaml"
    config.write_text(f'broken: [\ndata_dir: "{tmp_path}"  # here\n')
    async with running(tmp_path, Agent()):
        assert (await edge_agent("status", "-c", config)).returncode == 0
    missing = await edge_agent("status", "-c", tmp_path / "no.yaml")
    assert missing.returncode == 78
    assert "error[E003]" in missing.stderr


async def test_status_loads_only_the_standard_library(tmp_path: Path) -> None:
    """`status` must answer at once on a slow gateway: nothing heavy is imported for it."""
    words = ["-c", (
        "import sys; from agent.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'numpy','pydantic','structlog','orjson','yaml','asyncio','onnxruntime','email'};"
        "print('HEAVY', sorted(heavy & set(sys.modules)), code)"
    )]  # fmt: skip
    async with running(tmp_path, Agent()) as path:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, *words, "status", "--socket", str(path)],
            capture_output=True, text=True, timeout=20, cwd=CHECKOUT, check=True,
        )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "HEAVY [] 0"


async def test_reload_says_what_changed(tmp_path: Path) -> None:
    """The administrator reads what the new file added, changed and removed."""
    async with running(tmp_path, Agent()) as path:
        done = await edge_agent("reload", "--socket", path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["added    source/press2", "removed  model/old"]


async def test_a_refused_reload_ends_with_78(tmp_path: Path) -> None:
    """A broken file makes `reload`, and with it `systemctl reload`, fail with every problem."""
    agent = Agent()
    agent.reload = {"refused": "error[E101]: unknown key\n\n2 errors.", "problems": [{}, {}]}
    async with running(tmp_path, agent) as path:
        done = await edge_agent("reload", "--socket", path)
    assert (done.returncode, done.stdout) == (78, "")
    assert "error[E101]" in done.stderr


async def test_outbox_asks_the_agent(tmp_path: Path) -> None:
    """What waits is one line for each sink."""
    async with running(tmp_path, Agent()) as path:
        done = await edge_agent("outbox", "--socket", path)
    assert done.stdout.split() == ["SINK", "OWED", "OLDEST", "AGE", "CONNECTED",
                                   "hq", "1200", "1", "h", "2", "min", "no"]  # fmt: skip


async def test_outbox_shows_the_room_of_each_class(tmp_path: Path) -> None:
    """What each class takes, beside its quota; of a resting agent as its file says, if it can be
    used.
    """
    agent = Agent()
    agent.status["journal"] = {"classes": {"values": {"bytes": 250, "quota": 1000}}}
    async with running(tmp_path, agent) as path:
        done = await edge_agent("outbox", "--room", "--socket", path)
    assert done.stdout.split() == ["CLASS", "BYTES", "QUOTA", "PERCENT",
                                   "values", "250", "1000", "25"]  # fmt: skip
    config = tmp_path / "edge.yaml"
    config.write_text(f"data_dir: {tmp_path}\n")
    limits = JournalConfig.model_validate({})
    async with open_store(tmp_path, limits, SystemClock(), Stats(), "") as store:
        store.journal.put(
            AlarmEvent("hot", "press1/oil_temp", "press1/fast", NOW_NS, True, 3, 91.0, 90.0, 192)
        )
        await store.journal.flush()
    done = await edge_agent("outbox", "--room", "-c", config, "--json")
    room = {row["class"]: row["bytes"] for row in json.loads(done.stdout)}
    assert room.pop("alarms") > 0
    assert room == {"values": 0, "results": 0, "batch": 0, "metrics": 0}
    config.write_text(
        f"version: 1\ngateway: {{id: g}}\ndata_dir: {tmp_path}\n"
        "journal: {max_size: 100MB, quota: {values: 40%}}\n"
    )
    done = await edge_agent("outbox", "--room", "-c", config)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["CLASS", "BYTES", "QUOTA", "PERCENT"]
    assert ["values", "0", "40000000", "0"] in lines


@pytest.mark.parametrize(
    ("journal", "line"),
    [
        ({"classes": {"values": {"bytes": 10, "quota": 100}}}, ""),
        ({"classes": {}, "quota_set": True}, ""),
        ({"classes": {"values": {"bytes": 85, "quota": 100}, "batch": {"bytes": 1, "quota": 100}}},
         "of their quota values 85 %, batch 1 %"),
        ({"classes": {"values": {"bytes": 10, "quota": 100}}, "quota_set": True},
         "of their quota values 10 %"),
    ],
)  # fmt: skip
def test_the_page_tells_of_the_room(journal, line):
    """Bytes, the hours they last, and of the classes of rows when there is something to tell."""
    told = page(STATUS | {"journal": STATUS["journal"] | {"holds_h": 49.5} | journal})
    assert "journal durable, epoch 4  1.0 MB on disk  holds 2 d 1 h" in told
    assert [x for x in told.splitlines() if "quota" in x] == ([line] if line else [])


async def test_outbox_of_a_resting_agent_is_read_from_its_disk(tmp_path: Path) -> None:
    """Without the agent `outbox` reads the journal itself; without a journal it is a 3."""
    config = tmp_path / "edge.yaml"
    config.write_text(f"data_dir: {tmp_path}\n")
    none = await edge_agent("outbox", "-c", config)
    assert (none.returncode, none.stdout) == (3, "")
    assert "error[E775]" in none.stderr
    limits = JournalConfig.model_validate({})
    async with open_store(tmp_path, limits, SystemClock(), Stats(), "") as store:
        store.journal.outbox("hq")
        store.journal.put(
            AlarmEvent("hot", "press1/oil_temp", "press1/fast", NOW_NS, True, 3, 91.0, 90.0, 192)
        )
        await store.journal.flush()
    done = await edge_agent("outbox", "-c", config, "--json")
    ((row),) = json.loads(done.stdout)
    assert (row["sink"], row["owed"], row["oldest_ns"]) == ("hq", 1, NOW_NS)
    async with open_store(tmp_path, limits, SystemClock(), Stats(), "") as store:
        outbox = store.journal.outbox("hq")
        outbox.ack((await outbox.owed(Lane.ALARM, 1))[0], "not authorized")
    done = await edge_agent("outbox", "--dead", "-c", config)
    assert done.stdout.splitlines()[0].split()[:2] == ["SINK", "STREAM"]
    assert "not authorized" in done.stdout.splitlines()[1]


async def test_models_are_listed_and_refusals_told(tmp_path: Path) -> None:
    """`models list` is a table; a refusal of the agent has its code and cure, and no traceback."""
    async with running(tmp_path, Agent()) as path:
        listed = await edge_agent("models", "list", "--socket", path)
        refused = await edge_agent("models", "pull", "fan", "--socket", path)
    assert "pump" in listed.stdout
    assert "f" * 13 not in listed.stdout, "digests are short"
    assert refused.returncode == 69
    assert refused.stderr == "error[E640]: there is no model `fan`\n   = help: Name one.\n"


async def test_top_without_a_terminal_prints_one_page(tmp_path: Path) -> None:
    """In a pipe `top` is one page, and no control characters."""
    async with running(tmp_path, Agent()) as path:
        done = await edge_agent("top", "--once", "--socket", path)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout


async def test_top_on_a_terminal_redraws_until_q(tmp_path: Path) -> None:
    """On a terminal the page is drawn again and again; q ends and restores the screen."""
    seen = bytearray()

    def read() -> None:
        seen.extend(os.read(ours, 65536))

    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    asyncio.get_running_loop().add_reader(ours, read)
    try:
        async with running(tmp_path, Agent()) as path:
            words = [sys.executable, "-m", "agent", "top", "--interval", "0.1", "--socket", path]
            process = await asyncio.create_subprocess_exec(
                *map(str, words), stdin=theirs, stdout=theirs, stderr=theirs, cwd=CHECKOUT
            )
            try:
                await until(lambda: seen.count(b"hall1-gw1") >= 2)
                os.write(ours, b"q")
                assert await asyncio.wait_for(process.wait(), 5) == 0
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            await until(lambda: seen.endswith(b"\x1b[?1049l"))
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        os.close(theirs)


async def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    """`edge-agent status --json | head -1` says nothing about broken pipes."""
    agent = Agent()
    agent.status |= {"reasons": ["x" * 80] * 5000}
    async with running(tmp_path, agent) as path:
        words = f"{sys.executable} -m agent status --json --socket {path} | head -1"
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", words], capture_output=True, text=True, timeout=20,
            cwd=CHECKOUT, check=True,
        )  # fmt: skip
    assert (done.stdout, done.stderr) == ("{\n", "")


async def test_wrong_use_ends_with_2_and_version_with_0() -> None:
    """Argparse's own 2 for wrong use; --version and --help for everyone."""
    assert (await edge_agent("explode")).returncode == 2
    assert (await edge_agent()).returncode == 2
    version = await edge_agent("--version")
    assert version.stdout.startswith("edge-agent ")
    help_ = await edge_agent("--help")
    for name in ("run", "check", "status", "top", "reload", "outbox", "models", "demo"):
        assert f"    {name}" in help_.stdout


def test_the_page_is_made_of_whatever_is_known() -> None:
    """An agent that has just started, or an older one, must not break the page."""
    assert "No value yet" in page({}, colours=False)
    text = page({"tags": {f"d/t{i}": {"q": "good"} for i in range(60)}}, tags=40, colours=True)
    assert "(20 more: edge-agent status --all)" in text


def test_what_the_plant_says_goes_before_what_the_agent_says_of_itself() -> None:
    """The plant's tags first, of them the bad ones; then the agent's own, which wait for --all
    unless they are bad. A large plant does not push those off the page.
    """
    tags = {f"agent/n{i}": {"q": "good"} for i in range(60)}
    tags |= {"agent/none": {"q": "not_applicable"}, "agent/broken": {"q": "bad"}}
    tags |= {"pump1/flow": {"q": "good"}, "pump1/dead": {"q": "bad_comm"}}

    def shown(limit: int | None) -> list[str]:
        return re.findall(r"^[a-z0-9]+/\w+", page({"tags": tags}, tags=limit), re.MULTILINE)

    assert shown(40) == ["pump1/dead", "pump1/flow", "agent/broken"]
    assert shown(2) == ["pump1/dead", "agent/broken"]
    assert shown(None)[:3] == shown(40)
    assert len(shown(None)) == len(tags)
    assert "(61 more: edge-agent status --all)" in page({"tags": tags}, colours=False)


def test_columns_line_up_whatever_their_colour() -> None:
    """Colours take no room; the last column is not padded."""
    assert table(["A", "B"], [["\x1b[31mxx\x1b[0m", "1"], ["y", "2"]]) == (
        "A   B\n\x1b[31mxx\x1b[0m  1\ny   2"
    )
    assert records([], "nothing") == "nothing"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (float("nan"), "-"), (0.42, "0.4 s"), (59.0, "59 s"), (300.0, "5 min"),
     (3720.0, "1 h 2 min"), (187200.0, "2 d 4 h")],
)  # fmt: skip
def test_ages_are_read_at_a_glance(seconds: float | None, text: str) -> None:
    """Two units at most."""
    assert age(seconds) == text


def test_check_tells_what_the_flash_will_bear(tmp_path, capsys):
    """The estimate is within a third of what was measured for 50 tags at 1 Hz, and has a limit."""
    tags = "\n".join(f"      t{i}: {{reg: {i}}}" for i in range(50))
    config = tmp_path / "c.yaml"
    text = (
        "version: 1\ngateway: {id: g, prefix: p}\nself: {period: 60s}\n"
        "journal: {commit: COMMIT, wear_per_day: 1GB}\n"
        "devices:\n  d:\n    type: modbus\n    connect: tcp://127.0.0.1:502\n    unit: 1\n"
        f"    addressing: zero_based\n    poll: 1s\n    tags:\n{tags}\n"
    )
    for commit, measured, code in (("5s", 247, 0), ("30s", 64, 0), ("1s", 1127, 1)):
        config.write_text(text.replace("COMMIT", commit))
        assert main(["check", str(config)]) == code
        said = capsys.readouterr().out
        (line,) = [x for x in said.splitlines() if "to the disk" in x]
        assert float(line.split("about ")[1].split()[0].replace(",", "")) == pytest.approx(
            measured, rel=0.34
        )
        assert ("W304" in said) is (code == 1)


def test_the_page_shows_what_is_not_settled():
    """Probation, a file that is not what runs, the verdict on a model's drift and why."""
    config = STATUS["config"] | {
        "probation": {"by": "uid:0", "left_s": 42.0, "comes_back": "aa11bb22cc33"},
        "changed_on_disk": True,
    }
    model = STATUS["models"]["pump1"] | {
        "drift": {"verdict": "stale", "reasons": ["drift", "age"]},
        "stage": "probation",
        "candidate": "1.3.0 (shadow)",
    }
    text = page(STATUS | {"config": config, "models": {"pump1": model}}, colours=False)
    assert "on probation for another 42 s, asked for by uid:0" in text
    assert "aa11bb22cc33 comes back" in text
    assert "edge-agent plan" in text
    assert "stale (drift, age)" in text
    assert "probation  1.3.0 (shadow)" in text


def test_a_screen_shows_local_time_with_its_offset(monkeypatch):
    """Also of a time that was told in UTC; columns line up under letters of double width."""
    monkeypatch.setenv("TZ", "Asia/Seoul")
    time.tzset()
    try:
        rows = [{"name": "펌프 한글", "last_check": "2026-11-25T08:57:14Z"},
                {"name": "pump °C µm", "at_ns": NOW_NS}]  # fmt: skip
        lines = records(rows, "").splitlines()
        assert lines[1] == "펌프 한글   2026-11-25 17:57:14 +09:00  -"
        assert lines[2] == "pump °C µm  -                           2023-11-15 07:13:20 +09:00"
    finally:
        monkeypatch.undo()
        time.tzset()
