"""Who gets in: codes, passwords, patience, sessions."""

import stat

import pytest

from agent.core.errors import PermanentError
from agent.web.accounts import CODE_S, SESSION_S, TRIES, WITHIN_S, Accounts, Role

GOOD = "correct horse"


class Clock:
    """Seconds, set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def accounts(tmp_path, clock):
    return Accounts(tmp_path / "web", clock)


def refused(code, way, *words):
    with pytest.raises(PermanentError) as caught:
        way(*words)
    assert caught.value.code == code


def test_a_code_makes_one_account_once(accounts, tmp_path, clock):
    """With the role that it is for; kept as a hash, for the agent's user only."""
    code = accounts.code(Role.TECHNICIAN)
    _, session = accounts.enrol(code, "kim", GOOD, "a")
    assert (session.user, session.role) == ("kim", Role.TECHNICIAN)
    refused("E761", accounts.enrol, code, "lee", GOOD, "a")

    path = tmp_path / "web" / "accounts.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert GOOD not in path.read_text()
    assert code not in path.read_text()
    assert Accounts(tmp_path / "web", clock).known() == {"kim": Role.TECHNICIAN}


@pytest.mark.parametrize(
    ("user", "password"), [("a b", GOOD), ("", GOOD), ("../x", GOOD), ("kim", "short")]
)
def test_what_is_no_account(accounts, user, password):
    """Refused with the cure; the code is still good."""
    code = accounts.code()
    refused("E764", accounts.enrol, code, user, password, "a")
    accounts.enrol(code, "kim", GOOD, "a")


def test_a_code_grows_old_and_does_not_outlive_a_reboot(accounts, clock):
    """An hour; and the clock that counts it begins anew with the machine."""
    code = accounts.code()
    clock.now += CODE_S + 1
    refused("E761", accounts.enrol, code, "kim", GOOD, "a")
    code = accounts.code()
    clock.now = 5.0
    refused("E761", accounts.enrol, code, "kim", GOOD, "a")


def test_wrong_passwords_cost_patience(accounts, clock):
    """Five from one address, then a minute even with the right one; others are not held up."""
    accounts.enrol(accounts.code(), "kim", GOOD, "a")
    for _ in range(TRIES):
        refused("E762", accounts.log_in, "kim", "wrong wrong", "b")
    refused("E763", accounts.log_in, "kim", GOOD, "b")
    assert accounts.log_in("kim", GOOD, "c")[1].user == "kim"
    clock.now += WITHIN_S + 1
    assert accounts.log_in("kim", GOOD, "b")[1].user == "kim"
    refused("E762", accounts.log_in, "nobody", GOOD, "c")


def test_a_session_ends(accounts, clock):
    """After a shift, at the log-out, and not with somebody else's token."""
    token, session = accounts.enrol(accounts.code(), "kim", GOOD, "a")
    assert accounts.session(token) == session
    assert accounts.session(None) is None
    assert accounts.session(token + "x") is None
    accounts.log_out(token)
    assert accounts.session(token) is None
    token, _ = accounts.log_in("kim", GOOD, "a")
    clock.now += SESSION_S + 1
    assert accounts.session(token) is None
