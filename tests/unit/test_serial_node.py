"""Where the unit finds the serial ports of the machine: its own /dev holds none."""

from pathlib import Path

import pytest

from agent.links.modbus_dial import node


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The machine's /dev: a port, a link by id as udev makes it, one by hand, and a loop."""
    host = tmp_path / "host"
    (host / "serial" / "by-id").mkdir(parents=True)
    (host / "ttyUSB0").touch()
    (host / "serial" / "by-id" / "usb-1").symlink_to("../../ttyUSB0")
    (host / "press1").symlink_to("/dev/serial/by-id/usb-1")
    (host / "loop").symlink_to("loop")
    return host


@pytest.mark.parametrize("path", ["/dev/ttyUSB0", "/dev/serial/by-id/usb-1", "/dev/press1"])
def test_a_port_is_found_by_each_of_its_names(host: Path, path: str) -> None:
    """Relative links and absolute ones: all lead to the device below the machine's /dev."""
    assert node(path, host) == str(host / "ttyUSB0")


def test_a_link_outside_dev_leads_to_the_port_too(host: Path, tmp_path: Path) -> None:
    """`connect:` may name any path."""
    (tmp_path / "drive").symlink_to("/dev/ttyUSB0")
    assert node(str(tmp_path / "drive"), host) == str(host / "ttyUSB0")


def test_what_is_not_there_is_looked_for_where_it_would_be(host: Path) -> None:
    """A converter that is not plugged in, and a loop of links: opening says what is wrong."""
    assert node("/dev/ttyUSB9", host) == str(host / "ttyUSB9")
    assert node("/dev/loop", host) == str(host / "loop")


def test_without_our_unit_a_port_is_where_it_says(tmp_path: Path) -> None:
    """By hand, in a container, under another unit: nothing is below /dev/host."""
    assert node("/dev/ttyUSB0", tmp_path / "none") == "/dev/ttyUSB0"
