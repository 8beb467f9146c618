"""Models from a real container registry (Debian's docker-registry), and from one that lies."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from agent.core.errors import PermanentError, TransientError
from agent.registries.download import download
from agent.registries.oci import RELEASE, VERSION, WEIGHTS, OciConfig, OciRegistry
from simulators import models
from simulators.oci_registry import OciRegistry as Real
from simulators.packages import Key, keyring, mean_manifest, signed
from tests.models_bench import bench, document

pytestmark = pytest.mark.needs("docker-registry")
V1, V2 = (models.with_metadata(models.tiny(), v=str(v), pad="x" * 200_000) for v in (1, 2))


def port(url, **more):
    return OciRegistry("main", OciConfig.model_validate({"type": "oci", "url": url} | more))


@pytest.fixture
def real(tmp_path):
    with Real(tmp_path / "registry") as server:
        yield server


async def content(registry, offer, offset=0):
    return b"".join([chunk async for chunk in registry.fetch(offer, offset)])


async def test_a_signed_package_from_the_registry_serves(real, tmp_path):
    """Pushed, verified, proven, in service; the next release follows its tag; no token, no work."""
    root, key = Key.new(), Key.new()
    keyring(tmp_path / "keys.json", root, [key.entry()])
    doc = document(tmp_path / "data", real.url)
    doc["registries"]["main"] = {"type": "oci", "url": real.url}
    doc["trust"] = {"keyring": str(tmp_path / "keys.json"), "root": root.text}
    for release, model in ((1, V1), (2, V2)):
        envelope = signed(mean_manifest("m", f"1.{release}", release, model), key)
        real.publish("m", f"1.{release}", model, manifest=envelope, release=release)
        async with bench(doc) as b:
            await b.start()
            assert await b.poll()
            assert (b.serving(), b.entry()["signed_by"]) == (f"1.{release}", key.id)
            assert not await b.poll()
            assert b.entry()["last_error"] == ""


async def test_a_tag_resolves_and_tells_what_is_unchanged(real):
    """Version, release, size and digest of the layers; 304 while the tag stands."""
    real.publish("m", "1.0", V1, manifest=b"{}", release=7)
    registry = port(real.url)
    offer = await registry.resolve("m", "stable", None)
    assert (offer.version, offer.release, offer.size) == ("1.0", 7, len(V1))
    assert offer.manifest.size == 2
    assert await registry.resolve("m", "stable", offer.token) is None
    real.publish("m", "1.1", V2, release=8)
    assert (await registry.resolve("m", "stable", offer.token)).release == 8


@pytest.mark.parametrize("offset", [0, 1, 65_536, len(V1) - 1])
async def test_a_blob_is_read_from_any_offset(real, offset):
    """What an earlier download brought is not brought again."""
    real.publish("m", "1", V1)
    registry = port(real.url)
    offer = await registry.resolve("m", "stable", None)
    assert await content(registry, offer, offset) == V1[offset:]


async def test_a_blob_that_was_changed_on_the_server_is_refused(real, tmp_path):
    """As with clients that do not check: here the digest is compared, and nothing is left."""
    doc = document(tmp_path / "data", real.url)
    doc["registries"]["main"] = {"type": "oci", "url": real.url, "unsigned": "accept"}
    real.publish("m", "1", V1)
    blob = real.blob(V1)
    blob.write_bytes(V1[:-1] + b"?")
    async with bench(doc) as b:
        await b.start()
        assert not await b.poll()
        assert "E631" in b.entry()["last_error"]
        blob.write_bytes(V1[:1000])
        assert not await b.poll()
        assert "E630" in b.entry()["last_error"]


async def test_who_has_no_password_is_refused_and_who_has_one_is_not(tmp_path):
    """Basic authentication; the secret comes from a file."""
    users, password = tmp_path / "htpasswd", tmp_path / "password"
    users.write_text(
        "edge:$2y$04$e.JT5G/q9QoLPHFJZq5KpOf.tpiaqQt1NWbYfOs04nddH3fbHxxBW\n"
    )  # secret
    with Real(tmp_path / "registry", htpasswd=users) as server:
        server.auth = ("edge", "secret")
        server.publish("m", "1", V1)
        password.write_text("secret\n")
        who = {"user": "edge", "password": {"file": str(password)}}
        offer = await port(server.url, **who).resolve("m", "stable", None)
        assert await content(port(server.url, **who), offer) == V1
        with pytest.raises(PermanentError, match="E622"):
            await port(server.url).resolve("m", "stable", None)
        password.write_text("wrong\n")
        with pytest.raises(PermanentError, match="E622"):
            await port(server.url, **who).resolve("m", "stable", None)


async def test_what_is_not_there(real):
    """No repository, no tag, no name that a container registry could have; a dead server."""
    registry = port(real.url)
    with pytest.raises(PermanentError, match="E617"):
        await registry.resolve("m", "stable", None)
    real.publish("m", "1", V1)
    with pytest.raises(PermanentError, match="E617"):
        await registry.resolve("m", "beta", None)
    for name in ("M", "..", "a/b"):
        with pytest.raises(PermanentError, match="E616"):
            await registry.resolve(name, "stable", None)
    with pytest.raises(TransientError, match="E620"):
        await port("oci+http://127.0.0.1:1/edge", timeout="2s").resolve("m", "stable", None)


LIES = {
    "no layers": ({"layers": []}, "E614"),
    "no version": ({"annotations": {}}, "E614"),
    "absurd release": ({"annotations": {VERSION: "1", RELEASE: "-1"}}, "E614"),
}


@pytest.mark.parametrize("what", LIES)
async def test_an_image_that_is_no_package_is_refused(real, what):
    """Each with its code, before anything is fetched."""
    lies, code = LIES[what]
    real.publish("m", "1", V1, **lies)
    with pytest.raises(PermanentError, match=code):
        await port(real.url).resolve("m", "stable", None)


@asynccontextmanager
async def scripted(answer):
    """A server on loopback that answers each (path, headers) with status, headers and body."""

    async def serve(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        status, more, body = answer(head[0].split()[1], headers)
        lines = [f"HTTP/1.1 {status} X", "Connection: close", *(f"{k}: {v}" for k, v in more)]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        try:
            if callable(body):
                while True:
                    writer.write(body())
                    await writer.drain()
            writer.write(body)
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"oci+http://127.0.0.1:{server.sockets[0].getsockname()[1]}/edge"


async def test_a_token_service_is_asked_and_its_token_used(tmp_path):
    """401 names the service; what it gives opens the manifest; our password goes only there."""
    seen = []
    (tmp_path / "password").write_text("secret")
    image = {"layers": [{"mediaType": WEIGHTS, "digest": "sha256:" + "0" * 64, "size": 5}],
             "annotations": {VERSION: "1", RELEASE: "1"}}  # fmt: skip

    def answer(path, headers):
        seen.append((path, headers.get("authorization", "")))
        if path.startswith("/token"):
            return 200, (), b'{"token": "abc"}'
        if headers.get("authorization") == "bearer abc":
            return 200, (), json.dumps(image).encode()
        realm = f'Bearer realm="http://{headers["host"]}/token",service="s",scope="x"'
        return 401, [("WWW-Authenticate", realm)], b""

    async with scripted(answer) as url:
        secret = {"user": "edge", "password": {"file": str(tmp_path / "password")}}
        offer = await port(url, **secret).resolve("m", "stable", None)
    assert offer.release == 1
    assert [p.split("?")[0] for p, _ in seen] == [
        "/v2/edge/m/manifests/stable", "/token", "/v2/edge/m/manifests/stable",
    ]  # fmt: skip
    assert "scope=repository%3Aedge%2Fm%3Apull" in seen[1][0]
    assert seen[1][1].startswith("basic ")


async def test_our_secret_does_not_go_to_a_stranger():
    """A registry that names the token service of somebody else over http is refused."""
    challenge = 'Bearer realm="http://evil.example/token",service="s"'
    async with scripted(lambda *_: (401, [("WWW-Authenticate", challenge)], b"")) as url:
        with pytest.raises(PermanentError, match="E622"):
            await port(url).resolve("m", "stable", None)


async def test_an_endless_manifest_is_cut_off():
    """A megabyte is enough for any image manifest."""
    async with scripted(lambda *_: (200, (), lambda: b" " * 65_536)) as url:
        with pytest.raises(PermanentError, match="E610"):
            await port(url).resolve("m", "stable", None)


async def test_a_download_keeps_to_its_rate(real, tmp_path):
    """200 kB at 400 kB a second take half a second; nothing of it blocks the loop."""
    real.publish("m", "1", V1)
    registry = port(real.url, rate="400kB")
    offer = await registry.resolve("m", "stable", None)
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    path = await download(registry, offer, tmp_path / "d")
    assert loop.time() - begun_s > 0.8 * len(V1) / 400_000
    assert path.read_bytes() == V1
