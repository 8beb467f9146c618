"""Models from MLflow: a stand-in with recorded shapes here, the real server in tests/mlflow."""

import pytest

from agent.core.errors import AgentError, PermanentError, TransientError
from agent.registries.mlflow import MlflowConfig, MlflowRegistry
from simulators import models
from simulators.mlflow_server import MlflowServer, publish
from simulators.packages import Key, keyring, mean_manifest, signed
from tests.models_bench import bench, document

V1, V2 = (models.with_metadata(models.tiny(), v=str(v), pad="x" * 100_000) for v in (1, 2))


def port(url, **more):
    return MlflowRegistry(
        "main", MlflowConfig.model_validate({"type": "mlflow", "url": url} | more)
    )


@pytest.fixture
def server():
    with MlflowServer() as made:
        yield made


def trusting(folder, url):
    """A configuration that takes signed models from *url*, and the key that may sign them."""
    root, key = Key.new(), Key.new()
    keyring(folder / "keys.json", root, [key.entry()])
    doc = document(folder / "data", url)
    doc["registries"]["main"] = {"type": "mlflow", "url": url, "timeout": "10s"}
    doc["trust"] = {"keyring": str(folder / "keys.json"), "root": root.text}
    return doc, key


def put(base, key, release, model, **lies):
    """Publish a signed release."""
    version = f"1.{release}"
    envelope = signed(mean_manifest("m", version, release, model), key)
    publish(base, "m", version, model, manifest=envelope, release=release, **lies)
    return envelope


async def story(folder, base, url):
    """Two releases by alias, in service one after the other; the same against both servers."""
    doc, key = trusting(folder, url)
    for release, model in ((1, V1), (2, V2)):
        put(base, key, release, model)
        async with bench(doc) as b:
            await b.start()
            assert await b.poll(), b.entry()["last_error"]
            assert (b.serving(), b.entry()["signed_by"]) == (f"1.{release}", key.id)
            assert not await b.poll()
            assert b.entry()["last_error"] == ""
    registry = port(url)
    offer = await registry.resolve("m", "stable", None)
    assert await registry.resolve("m", "stable", offer.token) is None
    for offset in (0, 1, 65_536, len(V2) - 1):
        assert b"".join([c async for c in registry.fetch(offer, offset)]) == V2[offset:]
    with pytest.raises(PermanentError, match="E613"):
        await registry.resolve("m", "nightly", None)
    with pytest.raises(PermanentError, match="E617"):
        await registry.resolve("nobody", "stable", None)


async def test_aliases_are_channels(server, tmp_path):
    """Published, verified, proven, in service; nothing new is one request."""
    await story(tmp_path, server.base, server.url)


async def test_nothing_new_costs_one_request(server):
    """A poll with the token of the last one asks for the alias, and no more."""
    publish(server.base, "m", "1", V1)
    offer = await port(server.url).resolve("m", "stable", None)
    before = len(server.requests)
    await port(server.url).resolve("m", "stable", offer.token)
    assert len(server.requests) == before + 1


async def test_a_registered_version_that_somebody_overwrote_is_refused(server, tmp_path):
    """MLflow lets every client change the files of a READY version; the signature does not."""
    doc, key = trusting(tmp_path, server.url)
    put(server.base, key, 1, V1)
    async with bench(doc) as b:
        await b.start()
        assert await b.poll()
        put(server.base, key, 2, V2)
        (file,) = [f for f, data in server.files.items() if data == V2]
        for data, code in ((V2[:-1] + b"?", "E631"), (V2 + b"?", "E631"), (V2[:9], "E63")):
            server.files[file] = data[: len(V2) - 1] + b"!" if code == "E631" else data
            assert not await b.poll()
            assert code in b.entry()["last_error"]
        assert b.serving() == "1.1"


async def test_a_replayed_manifest_is_refused(server, tmp_path):
    """The package of release 1 under the tags of release 3."""
    doc, key = trusting(tmp_path, server.url)
    old = put(server.base, key, 1, V1)
    put(server.base, key, 2, V2)
    async with bench(doc) as b:
        await b.start()
        assert await b.poll()
        publish(server.base, "m", "1.3", V1, manifest=old, release=3)
        assert not await b.poll()
        assert "E685" in b.entry()["last_error"]
        publish(server.base, "m", "1.1", V1, manifest=old, release=1)
        assert not await b.poll()
        assert "E687" in b.entry()["last_error"]


async def test_a_server_that_misbehaves_changes_nothing(server, tmp_path):
    """Half a file, a file without end, no JSON, no access: version 1 serves on, and says why."""
    doc, key = trusting(tmp_path, server.url)
    put(server.base, key, 1, V1)
    async with bench(doc) as b:
        await b.start()
        assert await b.poll()
        put(server.base, key, 2, V2)
        for fault in ("truncated", "endless", "garbage", "refuse"):
            server.fault = fault
            assert not await b.poll()
            assert b.entry()["last_error"], fault
            assert b.serving() == "1.1"
        server.fault = ""
        assert await b.poll()
        assert b.serving() == "1.2"


@pytest.mark.parametrize(
    "lies",
    [
        {"size": "0"},
        {"size": "9" * 18},
        {"sha256": "x"},
        {"release": "-1"},
        {"manifest_size": "9999999"},
    ],
    ids=["no size", "absurd size", "no hash", "no release", "large manifest"],
)
async def test_tags_that_make_no_sense_are_refused(server, lies):
    """Before anything is fetched."""
    publish(server.base, "m", "1", V1, manifest=b"{}", **lies)
    with pytest.raises(PermanentError, match="E614"):
        await port(server.url).resolve("m", "stable", None)
    assert not any("artifacts/" in r and "GET" in r for r in server.requests)


@pytest.mark.parametrize("source", ["s3://bucket/m", "mlflow-artifacts:/../secret", "file:///etc"])
async def test_files_that_the_server_does_not_give_are_not_looked_for(server, source):
    """No bucket, no path of the server, no way out of its folder."""
    publish(server.base, "m", "1", V1)
    server.versions["m"][0]["source"] = source
    with pytest.raises(PermanentError, match="E623"):
        await port(server.url).resolve("m", "stable", None)


async def test_a_server_that_is_away_is_transient():
    """It comes back by itself."""
    with pytest.raises(TransientError, match="E620"):
        await port("mlflow+http://127.0.0.1:1", timeout="2s").resolve("m", "stable", None)
    with pytest.raises(AgentError, match="E616"):
        await port("mlflow+http://127.0.0.1:1").resolve("..", "stable", None)
