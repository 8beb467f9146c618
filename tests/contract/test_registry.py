"""The port `Registry`: one suite over a folder and over a server."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config.base import Context
from agent.core.errors import PermanentError, TransientError
from agent.core.stats import Stats
from agent.registries.directory import DirectoryConfig
from agent.registries.download import download
from agent.registries.http import HttpConfig
from agent.runtime.clock import SystemClock
from agent.storage.artifacts import FileArtifacts
from simulators.registry_server import RegistryServer
from tests.tools import until

MODEL = bytes(range(256)) * 4000


class Folder:
    """A registry in a folder, published to like `RegistryServer`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = self._registry({"type": "directory", "url": f"dir://{root}"})

    def _registry(self, raw):
        config = DirectoryConfig.model_validate(raw)
        return config.build("main", Context(SystemClock(), Stats(), "g1", "edge/g1", self.root))

    def publish(self, name, version, model, channel="stable", **lies):
        """Put a version on a channel."""
        path = self.root / name / "index.json"
        path.parent.mkdir(exist_ok=True)
        index = {"schema": 1, "channels": {}, "versions": {}}
        if path.exists():
            index = json.loads(path.read_text())
        file = f"{name}-{version}.onnx"
        (path.parent / file).write_bytes(model)
        index["versions"][version] = {
            "release": 1 + len(index["versions"]),
            "file": file,
            "size": len(model),
            "sha256": hashlib.sha256(model).hexdigest(),
        } | lies
        index["channels"][channel] = version
        path.write_text(json.dumps(index))

    def replace_file(self, name, version, model):
        """Change a published file, which nobody should."""
        (self.root / name / f"{name}-{version}.onnx").write_bytes(model)


class Server(RegistryServer):
    """The same over HTTP."""

    def __enter__(self):
        super().__enter__()
        raw = {"type": "http", "url": self.url, "timeout": "2s"}
        ctx = Context(SystemClock(), Stats(), "g1", "edge/g1", Path())
        self.model = HttpConfig.model_validate(raw).build("main", ctx)
        return self

    def replace_file(self, name, version, model):
        """Change a published file, which nobody should."""
        self._models[name].files[f"{name}-{version}.onnx"] = model


@pytest.fixture(params=["directory", "http"])
def place(request, tmp_path):
    """Something to publish to; ``model`` is the port over it."""
    if request.param == "directory":
        (tmp_path / "registry").mkdir()
        yield Folder(tmp_path / "registry")
    else:
        with Server() as server:
            yield server


async def content(registry, offer, offset=0):
    return b"".join([chunk async for chunk in registry.fetch(offer, offset)])


async def test_a_channel_resolves_to_what_was_published(place):
    """Version, release, size and hash are those of the file, and the file is what was put there."""
    place.publish("m", "1.0", MODEL)
    place.publish("m", "2.0-rc1", MODEL[1:], channel="beta")
    stable = await place.model.resolve("m", "stable", None)
    beta = await place.model.resolve("m", "beta", None)
    assert (stable.version, stable.release, stable.size) == ("1.0", 1, len(MODEL))
    assert (beta.version, beta.release) == ("2.0-rc1", 2)
    assert await content(place.model, beta) == MODEL[1:]


async def test_the_token_tells_what_is_unchanged(place):
    """None while nothing changed; a new offer, and another token, when something did."""
    place.publish("m", "1", MODEL)
    offer = await place.model.resolve("m", "stable", None)
    assert await place.model.resolve("m", "stable", offer.token) is None
    place.publish("m", "2", MODEL[2:])
    again = await place.model.resolve("m", "stable", offer.token)
    assert (again.version, again.token != offer.token) == ("2", True)


async def test_an_unknown_channel_names_those_that_exist(place):
    """The operator sees what could have been meant."""
    place.publish("m", "1", MODEL)
    with pytest.raises(PermanentError, match=r"E613.*`nightly`.*stable"):
        await place.model.resolve("m", "nightly", None)


async def test_an_unknown_model_is_permanent(place):
    """It does not appear by waiting: someone must publish it."""
    with pytest.raises(PermanentError, match="E617"):
        await place.model.resolve("m", "stable", None)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../m", "a\\b", "ü", "a b", "m\n", "m%2e"])
async def test_a_name_never_leaves_the_registry(place, name):
    """What cannot be a folder's name is refused before anybody is asked."""
    with pytest.raises(PermanentError, match="E616"):
        await place.model.resolve(name, "stable", None)


@pytest.mark.parametrize("file", ["../m/m-1.onnx", "/etc/passwd", "a//b", "a/../b", "http://x/y"])
async def test_a_file_never_leaves_the_registry(place, file):
    """An index that points elsewhere is refused as a whole."""
    place.publish("m", "1", MODEL, file=file)
    with pytest.raises(PermanentError, match="E615"):
        await place.model.resolve("m", "stable", None)


@pytest.mark.parametrize("offset", [0, 1, 65_536, len(MODEL) - 1, len(MODEL)])
async def test_a_file_is_read_from_any_offset(place, offset):
    """What an earlier download brought is not brought again."""
    place.publish("m", "1", MODEL)
    offer = await place.model.resolve("m", "stable", None)
    if offset < offer.size:
        assert await content(place.model, offer, offset) == MODEL[offset:]


async def test_a_file_that_vanished_is_permanent(place):
    """The index promises what is not there: the publisher must look."""
    place.publish("m", "1", MODEL, file="other.onnx")
    offer = await place.model.resolve("m", "stable", None)
    with pytest.raises(PermanentError, match="E617"):
        await content(place.model, offer)


async def test_a_longer_file_is_never_read_beyond_its_promise(place):
    """A file that grew gives no more bytes than the index said."""
    place.publish("m", "1", MODEL)
    offer = await place.model.resolve("m", "stable", None)
    place.replace_file("m", "1", MODEL * 2)
    assert len(await content(place.model, offer)) == len(MODEL)


async def test_a_file_that_changes_during_a_download_is_refused(place, tmp_path):
    """Half of one and half of another content is found by the hash, and leaves no trace."""
    place.publish("m", "1", MODEL)
    offer = await place.model.resolve("m", "stable", None)
    part = tmp_path / "d" / f"{offer.sha256}.part"
    part.parent.mkdir()
    part.write_bytes(MODEL[: len(MODEL) // 2])
    place.replace_file("m", "1", MODEL[::-1])
    store = FileArtifacts(tmp_path / "models")
    path = await download(place.model, offer, part.parent)
    with pytest.raises(PermanentError, match="E631"):
        store.add(path, offer.sha256, offer.size)
    assert not path.exists()
    assert store.path(offer.sha256) is None


async def test_an_interrupted_download_keeps_what_it_has(place, tmp_path):
    """A shorter file than promised is no complete download; the rest comes from where it ended."""
    place.publish("m", "1", MODEL)
    offer = await place.model.resolve("m", "stable", None)
    place.replace_file("m", "1", MODEL[:200_000])
    with pytest.raises((TransientError, PermanentError)):
        await download(place.model, offer, tmp_path / "d")
    place.replace_file("m", "1", MODEL)
    path = await download(place.model, offer, tmp_path / "d")
    store = FileArtifacts(tmp_path / "models")
    assert store.add(path, offer.sha256, offer.size).read_bytes() == MODEL


async def test_a_fetch_that_is_left_early_leaves_nothing_open(place):
    """Files and connections are closed with the generator."""
    place.publish("m", "1", MODEL)
    offer = await place.model.resolve("m", "stable", None)
    before = _open_files()
    for _ in range(5):
        chunks = place.model.fetch(offer, 0)
        await anext(chunks)
        await chunks.aclose()
    await until(lambda: _open_files() <= before)


def _open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("index", [b"", b"[]", b"{}", b"{" * 100_000, b"\xff", b"null", b"1"])
async def test_what_is_no_index_is_refused(place, index):
    """Anything else than an index of schema 1 is a permanent error with its code."""
    place.publish("m", "1", MODEL)
    if isinstance(place, Folder):
        (place.root / "m" / "index.json").write_bytes(index)
    else:
        place.index = lambda _name: index
    with pytest.raises(PermanentError, match=r"E61[12]"):
        await place.model.resolve("m", "stable", None)


async def test_a_registry_that_is_not_there_is_transient(tmp_path):
    """An unmounted share or a server that is down come back by themselves."""
    folder = Folder(tmp_path / "unmounted")
    with Server() as server:
        pass
    for place in (folder, server):
        with pytest.raises(TransientError, match="E620"):
            await place.model.resolve("m", "stable", None)


async def test_pipes_and_devices_are_not_read(tmp_path):
    """A pipe instead of an index would hold the agent for ever."""
    folder = Folder(tmp_path)
    (tmp_path / "m").mkdir()
    os.mkfifo(tmp_path / "m" / "index.json")
    with pytest.raises(PermanentError, match="E617"):
        await folder.model.resolve("m", "stable", None)


async def test_a_server_that_answers_with_another_range_is_not_believed(tmp_path):
    """The start of a file is never appended to its first half."""
    with Server() as server:
        server.publish("m", "1", MODEL)
        offer = await server.model.resolve("m", "stable", None)
        server.fault = "other_range"
        with pytest.raises(PermanentError, match="E625"):
            await content(server.model, offer, 1000)


async def test_an_offer_of_another_server_is_not_fetched():
    """The token of one registry never goes to another host."""
    with Server() as one, Server() as other:
        other.publish("m", "1", MODEL)
        offer = await other.model.resolve("m", "stable", None)
        with pytest.raises(PermanentError, match="E624"):
            await content(one.model, offer)


async def test_a_model_of_absurd_size_is_not_begun(place, tmp_path):
    """Whoever offers it: nothing is asked of the disk or of the network."""
    place.publish("m", "1", MODEL)
    offer = await place.model.resolve("m", "stable", None)
    with pytest.raises(PermanentError, match="E614"):
        await download(place.model, replace(offer, size=10**15), tmp_path / "d")
    assert not (tmp_path / "d").exists()
