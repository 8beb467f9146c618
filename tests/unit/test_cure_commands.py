"""Commands that cure a refusal: they fit the path, and none is named where nothing is refused."""

from pathlib import Path

import pytest

from agent.config.cures import readable, readable_folder, unit_setting, writable


def test_what_may_be_read_or_is_not_there_needs_no_command(tmp_path: Path) -> None:
    """A wrong path is no question of rights."""
    (tmp_path / "ca.pem").touch()
    assert readable(str(tmp_path / "ca.pem"), None, "/etc/edge-agent/no-such-file") == ""
    assert readable_folder(tmp_path) == writable(tmp_path) == writable(tmp_path / "none") == ""


@pytest.mark.parametrize("folder", ["/home/t", "/tmp", "/run/user/1000"])  # noqa: S108
def test_what_the_unit_hides_is_copied_to_where_it_may_be_read(folder: str) -> None:
    """Whatever a technician has in a home folder or in /tmp; a space in the name does no harm."""
    assert readable(f"{folder}/no such.pem") == (
        f"Run: sudo install -o edge-agent -m 400 '{folder}/no such.pem' "
        "'/etc/edge-agent/no such.pem'; then name /etc/edge-agent/no such.pem here."
    )


def test_a_setting_of_the_unit_is_one_line() -> None:
    """To be typed as it stands: a file of its own, so that nothing else of the unit is lost."""
    line = unit_setting("data", "ReadWritePaths=/data/agent")
    assert line.startswith("Run: printf '[Service]\\nReadWritePaths=/data/agent\\n' | sudo ")
    assert "\n" not in line
