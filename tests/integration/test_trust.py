"""Signed models against the attacks of the TUF list, through the real rollout and worker."""

import json

import pytest

from agent.codecs import envelope as dsse
from agent.core.errors import AgentError, PermanentError
from agent.registries.trust import NAMESPACE, SIGNED
from simulators import models
from simulators.packages import Key, keyring, mean_manifest, signed, time
from simulators.registry_server import RegistryServer
from tests.models_bench import bench, document

V1, V2, V3 = (models.with_metadata(models.tiny(), v=str(v)) for v in (1, 2, 3))


class Publisher:
    """A registry, the keys, and a gateway that trusts one of them."""

    def __init__(self, server, folder):
        self.server, self.root, self.key = server, Key.new(), Key.new()
        self.ring = folder / "keyring.json"
        keyring(self.ring, self.root, [self.key.entry("m*")])
        self.doc = document(folder / "data", server.url)
        self.doc["registries"]["main"].pop("unsigned")
        self.doc["trust"] = {"keyring": str(self.ring), "root": self.root.text}

    def publish(self, version, model, *keys, release=None, **changes):
        """Put a signed version on the channel; by the trusted key unless others are named."""
        release = release or int(version)
        manifest = mean_manifest("m", version, release, model, **changes)
        envelope = signed(manifest, *(keys or (self.key,)))
        self.server.publish("m", version, model, manifest=envelope, release=release)
        return envelope


@pytest.fixture
def there(tmp_path):
    with RegistryServer() as server:
        yield Publisher(server, tmp_path)


async def refused(b, code):
    """The next poll takes nothing, and says why; what served serves on."""
    serving = b.serving()
    assert not await b.poll()
    assert code in b.entry()["last_error"], b.entry()["last_error"]
    assert b.serving() == serving


async def test_a_signed_version_serves_and_says_who_signed_it(there):
    """Verified, proven from raw samples to decision, active; the key is in the list."""
    there.publish("1", V1)
    async with bench(there.doc) as b:
        await b.start()
        assert await b.poll()
        assert (b.serving(), b.entry()["signed_by"]) == ("1", there.key.id)
        b.feed(6)
        await b.scored(6)
    async with bench(there.doc) as b:  # and after a restart, without asking anybody
        await b.start()
        assert (b.serving(), b.entry()["signed_by"]) == ("1", there.key.id)


async def test_what_is_not_signed_is_not_even_downloaded(there):
    """Without `unsigned: accept` a bare file is refused; with it, status keeps saying so."""
    there.server.publish("m", "1", V1)
    async with bench(there.doc) as b:
        await b.start()
        await refused(b, "E680")
        assert not any(".onnx" in path for path, _ in there.server.requests)
        there.doc["registries"]["main"]["unsigned"] = "accept"
        b.reload(registries=there.doc["registries"])
        await b.start()
        assert await b.poll()
        assert (b.serving(), b.entry()["signed_by"]) == ("1", None)


@pytest.mark.parametrize("attack", ["wrong key", "no key", "other name", "root key", "keyring"])
async def test_a_signature_of_somebody_else_counts_for_nothing(there, attack, tmp_path):
    """Stranger, nobody, a key for other models, the root key itself, a keyring as manifest."""
    async with bench(there.doc) as b:
        await b.start()
        manifest = mean_manifest("m", "1", 1, V1)
        code = "E684"
        if attack == "wrong key":
            data = signed(manifest, Key.new())
        elif attack == "no key":
            data = signed(manifest)
        elif attack == "root key":
            data = signed(manifest, there.root)
        elif attack == "other name":
            other = Key.new()
            keyring(there.ring, there.root, [other.entry("pump-*")], release=2)
            data = signed(manifest, other)
        else:
            data, code = there.ring.read_bytes(), "E681"
        there.server.publish("m", "1", V1, manifest=data, release=1)
        await refused(b, code)
        with pytest.raises(AgentError, match=code):  # an operator's pull does not help either
            await b.rollout.pull("m")


async def test_tampering_is_found(there):
    """One changed number in the manifest, one changed bit in the model."""
    there.publish("1", V1)
    async with bench(there.doc) as b:
        await b.start()
        assert await b.poll()
        raw = json.loads(there.publish("2", V2))
        payload = dsse.read(json.dumps(raw).encode(), "", dsse.MANIFEST).payload
        forged = payload.replace(b'"above": 1000', b'"above": 9999')
        changed = dsse.Envelope(dsse.MANIFEST, forged, ((there.key.id, b"\0" * 64),))
        there.server.publish("m", "2", V2, manifest=dsse.write(changed), release=2)
        await refused(b, "E684")
        there.publish("3", V3)
        there.server._models["m"].files["m-3.onnx"] = V3[:-1] + bytes([V3[-1] ^ 1])
        await refused(b, "E631")


async def test_mixing_parts_of_two_versions_is_found(there):
    """The manifest of one version with the file, number or name of another."""
    old = there.publish("1", V1)
    async with bench(there.doc) as b:
        await b.start()
        assert await b.poll()
        there.server.publish("m", "2", V2, manifest=old, release=2)
        await refused(b, "E685")
        there.server.publish("m", "1", V2, manifest=old, release=9)
        await refused(b, "E685")


async def test_an_old_release_never_comes_back_by_itself(there, tmp_path):
    """Replayed after an update, after a restart, and after the newer file was lost from disk."""
    first = there.publish("1", V1)
    async with bench(there.doc) as b:
        await b.start()
        assert await b.poll()
        there.publish("2", V2)
        assert await b.poll()
        there.server.publish("m", "1", V1, manifest=first, release=1)
        await refused(b, "E687")
    for file in (tmp_path / "data" / "models").iterdir():
        file.unlink()
    async with bench(there.doc) as b:
        await b.start()
        assert not await b.poll()
        assert "E687" in b.entry()["last_error"]
        assert (await b.rollout.pull("m"))["version"] == "1"  # an operator may


async def test_a_frozen_registry_is_seen(there, tmp_path):
    """When nobody signs anew what serves, the gateway serves on and says since when."""
    there.publish("1", V1, expires=time(1))
    async with bench(there.doc) as b:
        await b.start()
        assert await b.poll()
        assert b.rollout.trouble("m") == ""
        later_ns = b.daemon.clock.wall_ns() + 2 * 86_400 * 10**9  # somebody trusted signed then
        await b.daemon.store.state.put(NAMESPACE, SIGNED, later_ns)
        assert b.serving() == "1"
        assert "E686" in b.rollout.trouble("m")
        there.publish("2", V2, expires=time(-1))
        await refused(b, "E686")
        there.publish("3", V3, expires=time(30))
        assert await b.poll()
        assert b.rollout.trouble("m") == ""


async def test_signing_anew_makes_it_fresh_without_a_download(there):
    """The same file with a later end: the manifest is taken, the file is not fetched again."""
    there.publish("1", V1, expires=time(1))
    async with bench(there.doc) as b:
        await b.start()
        assert await b.poll()
        before = len([p for p, _ in there.server.requests if p.endswith(".onnx")])
        there.publish("1", V1, expires=time(30))
        assert not await b.poll()
        assert b.entry()["expires"] == time(30)[:10]
        assert len([p for p, _ in there.server.requests if p.endswith(".onnx")]) == before
    async with bench(there.doc) as b:
        await b.start()
        assert b.entry()["expires"] == time(30)[:10]


async def test_a_wrong_clock_bricks_nothing(there, monkeypatch):
    """A clock without discipline, at 1970 or in 2100: signed time alone counts."""
    there.publish("1", V1, expires=time(30))
    for wall_ns in (0, 4_102_444_800 * 10**9):
        async with bench(there.doc) as b:
            monkeypatch.setattr(type(b.daemon.clock), "state", "unsynced")
            monkeypatch.setattr(type(b.daemon.clock), "wall_ns", lambda _, ns=wall_ns: ns)
            await b.start()
            await b.poll()
            assert b.serving() == "1"
            assert b.rollout.trouble("m") == ""


async def test_time_never_goes_back_behind_what_was_signed(there, monkeypatch):
    """A clock set back does not revive what has expired."""
    async with bench(there.doc) as b:
        await b.start()
        there.publish("1", V1, created=time(-1))
        assert await b.poll()
        monkeypatch.setattr(type(b.daemon.clock), "state", "unsynced")
        monkeypatch.setattr(type(b.daemon.clock), "wall_ns", lambda _: 0)
        there.publish("2", V2, expires=time(-2))
        await refused(b, "E686")


async def test_keys_expire_and_are_revoked(there):
    """A key after its end, or that a newer keyring no longer has, signs nothing new."""
    there.publish("1", V1)
    async with bench(there.doc) as b:
        await b.start()
        assert await b.poll()
        keyring(there.ring, there.root, [there.key.entry(not_after=time(-1))], release=2)
        there.publish("2", V2)
        await refused(b, "E684")
        keyring(there.ring, there.root, [Key.new().entry()], release=3)
        there.publish("3", V3)
        await refused(b, "E684")


@pytest.mark.parametrize("attack", ["older", "same number", "other root", "not there", "endless"])
async def test_a_keyring_is_newest_and_of_the_root_key(there, attack):
    """An old keyring would bring a revoked key back."""
    keyring(there.ring, there.root, [there.key.entry()], release=5)
    there.publish("1", V1)
    async with bench(there.doc) as b:
        await b.start()
        assert await b.poll()
        there.publish("2", V2)
        code = "E683"
        if attack == "older":
            keyring(there.ring, there.root, [there.key.entry()], release=4)
        elif attack == "same number":
            keyring(there.ring, there.root, [there.key.entry("*")], release=5, created=time(1))
        elif attack == "other root":
            keyring(there.ring, Key.new(), [there.key.entry()], release=6)
        elif attack == "not there":
            there.ring.unlink()
        else:
            code = "E681"
            there.ring.write_bytes(b"{" * (dsse.MAX_ENVELOPE + 10))
        await refused(b, code)


async def test_endless_manifests_are_cut_off(there):
    """No more is read than the index says, and the index may not say more than a megabyte."""
    there.publish("1", V1)
    async with bench(there.doc) as b:
        await b.start()
        assert await b.poll()
        there.publish("2", V2)
        entry = there.server._models["m"].versions["2"]
        there.server._models["m"].files["m-2.manifest"] += b" " * 50_000_000
        sent = there.server.sent
        await b.poll()
        assert there.server.sent - sent < 10_000_000
        entry["manifest"]["size"] = 50_000_000
        await refused(b, "E614")


BAD = {
    "golden": ({"golden": [mean_manifest("m", "2", 2, V2)["golden"][0] | {"outputs": {
        "score": [3.0, 4.1]}}]}, "E688"),
    "flags": ({"decision": {"output": "score", "above": 3.5}}, "E688"),
    "channels": ({"channels": [{"name": "a"}, {"name": "b"}]}, "E682"),
    "window": ({"window": {"kind": "count", "rows": 4}}, "E689"),
    "runtime": ({"requires": {"onnxruntime": "99"}}, "E689"),
    "memory": ({"requires": {"memory_mb": 5000}}, "E689"),
    "time": ({"requires": {"run_ms": 1e-6}}, "E689"),
    "target": ({"target": {"gateways": ["other-*"]}}, "E690"),
    "percent": ({"target": {"percent": 0}}, "E690"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
async def test_a_signed_promise_that_does_not_hold_is_refused(there, what):
    """Golden outputs and flags, channels, window, needs and target are held against the gateway."""
    changes, code = BAD[what]
    there.publish("1", V1)
    async with bench(there.doc) as b:
        await b.start()
        assert await b.poll()
        there.publish("2", V2, **changes)
        await refused(b, code)


async def test_features_and_scaling_of_the_manifest_are_applied(there):
    """The gateway feeds the model what the manifest says: here twice the mean of one channel."""
    golden = mean_manifest("m", "1", 1, models.tiny())["golden"][0]
    there.publish(
        "1",
        V1,
        features=[{"take": "mean", "of": ["a"]}],
        normalisation={"mean": [0.0] * 3, "scale": [0.5] * 3},
        golden=[golden | {"outputs": {"score": [4.0, 6.0]}}],
    )
    async with bench(there.doc) as b:
        await b.start()
        assert await b.poll()
        b.feed(6)
        await b.scored(6)
        assert [score for _, score, _ in b.results()] == [2 * 3.0, 2 * 4.0]


async def test_a_damaged_manifest_on_disk_is_brought_again(there, tmp_path):
    """What the disk no longer has right is not used."""
    there.publish("1", V1)
    async with bench(there.doc) as b:
        await b.start()
        assert await b.poll()
        digest = b.entry()["digest"]
    (tmp_path / "data" / "models" / f"{digest}.manifest").write_bytes(b"rot")
    async with bench(there.doc) as b:
        await b.start()
        assert b.serving() is None
        assert "E648" in b.entry()["last_error"]
        assert await b.poll()
        assert b.serving() == "1"


async def test_nobody_is_trusted_by_default(there):
    """A registry that wants signatures needs `trust:`; the file is refused without."""
    there.doc.pop("trust")
    with pytest.raises(PermanentError):
        async with bench(there.doc):
            pass
