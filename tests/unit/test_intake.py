"""Files on their way in: none is collected before it is written down that it must stay."""

import asyncio
import hashlib
import threading

from agent.runtime.intake import Intake
from agent.storage.artifacts import FileArtifacts

DATA = b"a model"
DIGEST = hashlib.sha256(DATA).hexdigest()


class Slow(FileArtifacts):
    """A store whose clean-up lasts until it is told to go on."""

    def __init__(self, folder):
        super().__init__(folder)
        self.began, self.go_on = threading.Event(), threading.Event()

    def collect(self, keep):
        self.began.set()
        assert self.go_on.wait(10)
        return super().collect(keep)


async def test_a_local_file_stays_while_it_is_looked_at(tmp_path):
    """Other models clean up meanwhile, and nobody has written it down yet."""
    store = FileArtifacts(tmp_path / "models")
    intake = Intake(store, None, None, tmp_path / "downloads")
    (tmp_path / "m.onnx").write_bytes(DATA)
    async with intake.local("m", tmp_path / "m.onnx") as artifact:
        await intake.collect(lambda: ())
        assert await intake.verified(artifact) == DATA
    await intake.collect(lambda: ())
    assert store.path(DIGEST) is None


async def test_what_is_written_down_while_a_clean_up_waits_is_kept(tmp_path):
    """What must stay is asked when the files are deleted, not when somebody begins to wait."""
    store = Slow(tmp_path / "models")
    intake = Intake(store, None, None, tmp_path / "downloads")
    (tmp_path / "m.onnx").write_bytes(DATA)
    async with intake.local("m", tmp_path / "m.onnx"):
        recorded: set[str] = set()
        first = asyncio.create_task(intake.collect(lambda: recorded))
        await asyncio.to_thread(store.began.wait, 10)
        second = asyncio.create_task(intake.collect(lambda: recorded))
        await asyncio.sleep(0)
        recorded.add(DIGEST)
    store.go_on.set()
    await asyncio.gather(first, second)
    assert store.path(DIGEST) is not None
