"""Whether the file on the disk is another than what runs: the file, its fragments, its profiles."""

from dataclasses import replace

import pytest

from agent.app.boot import accept
from agent.app.ondisk import OnDisk

FILE = """\
version: 1
gateway: {id: g}
devices:
  d: {profile: map, connect: "tcp://h:502", unit: 1}
"""
MAP = "type: modbus\naddressing: zero_based\ntags: {a: {reg: 0, unit: °C}}\n"
FRAGMENT = 'alarms: {hot: {tag: d/a, high: 8, text: "한글"}}\n'


@pytest.fixture
def config(tmp_path):
    for folder in ("profiles", "conf.d"):
        (tmp_path / folder).mkdir()
    (tmp_path / "profiles" / "map.yaml").write_text(MAP, "utf-8")
    (tmp_path / "conf.d" / "hot.yaml").write_text(FRAGMENT, "utf-8")
    path = tmp_path / "e.yaml"
    path.write_text(FILE, "utf-8")
    return path


@pytest.mark.parametrize("name", ["e.yaml", "profiles/map.yaml", "conf.d/hot.yaml"])
async def test_whatever_belongs_to_it_counts(config, name):
    """Each of the files, and back: changed, equal again; gone, or no text: changed."""
    loaded = accept(config)
    on_disk, path = OnDisk(lambda: loaded), config.parent / name
    before = path.read_text("utf-8")
    assert not on_disk.changed
    for text, changed in ((before + "# x\n", True), (before, False)):
        path.write_text(text, "utf-8")
        await on_disk.look()
        assert on_disk.changed is changed
    path.write_bytes(b"\xff")
    await on_disk.look()
    assert on_disk.changed
    path.unlink()
    await on_disk.look()
    assert on_disk.changed


async def test_a_new_fragment_counts_and_a_reload_settles_it(config):
    """What is taken over is equal from that moment on; what stands in for it is not."""
    loaded = accept(config)
    on_disk = OnDisk(lambda: loaded)
    (config.parent / "conf.d" / "more.yaml").write_text("devices: {}\n", "utf-8")
    await on_disk.look()
    assert on_disk.changed
    loaded = accept(config)
    assert not on_disk.changed
    await on_disk.look()
    assert not on_disk.changed
    loaded = replace(loaded, last_good=True)
    assert on_disk.changed
