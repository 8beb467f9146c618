"""A file system that turns read-only under the agent, and comes back."""

import subprocess
from pathlib import Path

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, FarEnd, Manager, configure, device, sink, told
from tests.tools import until

MANY = pytest.mark.slow
pytestmark = [
    pytest.mark.root,
    pytest.mark.loop,
    pytest.mark.needs("mosquitto", "mkfs.ext4", "unshare", "nsenter"),
    pytest.mark.skipif(not Path("/sys/fs/ext4").is_dir(), reason="the kernel has no ext4"),
]


class Disk:
    """An ext4 file system in a file, mounted in a mount namespace of its own.

    Attributes:
        command: Runs the agent inside that namespace.
        folder: Where it is mounted there.
    """

    def __init__(self, folder: Path) -> None:
        self._image, self.folder = folder / "disk.img", folder / "data"
        self.folder.mkdir()
        run("truncate", "-s", "64M", str(self._image))
        run("mkfs.ext4", "-q", str(self._image))
        self._mount = ("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.folder))
        script = f'{" ".join(self._mount)} && exec "$@"'
        self.command = ("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh")

    def turn_read_only(self, pid: int) -> None:
        """As the kernel does after an error on the disk: every write is refused, open or not."""
        for line in Path(f"/proc/{pid}/mounts").read_text().splitlines():
            source, where, *_ = line.split()
            if where == str(self.folder):
                name = source.removeprefix("/dev/")
                Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("test\n")
                return
        raise AssertionError(f"{self.folder} is not mounted")

    def repair(self, pid: int) -> None:
        """As an operator does: unmount, mount again. Refused while somebody has a file open."""
        inside = ("nsenter", "-t", str(pid), "-m")
        run(*inside, "umount", str(self.folder))
        run(*inside, *self._mount)


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("failures", [1, pytest.param(6, marks=MANY)])
async def test_a_disk_that_turns_read_only(tmp_path, rng, failures):
    """The agent goes on collecting and publishing, says that nothing is durable, raises its
    alarm, keeps its watchdog quiet, and writes again when the disk does.
    """
    disk, image = Disk(tmp_path), Counting()
    with (
        Broker() as broker,
        Collector(broker.url, "edge/#") as collector,
        Manager(tmp_path) as manager,
    ):
        far = FarEnd(collector)
        async with ModbusServer({1: image}) as server:
            config = configure(
                tmp_path, devices={"d": device(server.url)}, sinks={"plant": sink(broker.url)}
            )
            (tmp_path / "run").mkdir()
            env = manager.environment(watchdog_s=10.0) | {
                "RUNTIME_DIRECTORY": str(tmp_path / "run")
            }
            async with AgentProcess(config, command=disk.command, env=env) as agent:
                for n in range(1, failures + 1):
                    await told(agent, lambda s: s["journal"]["durable"])
                    await image.read(rng.randrange(20, 60))
                    disk.turn_read_only(agent.pid)
                    await read_only(agent, image, far, n)
                    await told(agent, lambda _: repaired(disk, agent.pid), 20)
                    await told(agent, lambda s: s["journal"]["durable"], 30)
                    await until(lambda n=n: far.alarms("agent.not_durable") == [True, False] * n)
                assert await agent.terminate() == 0
        assert manager.longest_silence_s() < 10.0
        await until(lambda: far.values("d")[-1] > image.reads - 5)
        far.sound()
        values = far.values("d")
        assert values == [values[0] + i for i in range(len(values))]


async def read_only(agent: AgentProcess, image: Counting, far: FarEnd, n: int) -> None:
    """What the agent says and does while its disk refuses."""
    status = await told(agent, lambda s: not s["journal"]["durable"])
    assert "the journal cannot write: values are sent live only" in status["reasons"]
    seen = len(far.values("d"))
    await image.read(60)
    await until(lambda: len(far.values("d")) > seen + 40)
    await until(lambda: far.alarms("agent.not_durable") == [*([True, False] * (n - 1)), True])


def repaired(disk: Disk, pid: int) -> bool:
    """One try to mount it again; refused while the agent looks whether the disk is back."""
    try:
        disk.repair(pid)
    except AssertionError:
        return False
    return True
