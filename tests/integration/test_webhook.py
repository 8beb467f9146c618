"""A webhook at a real HTTP server, with and without TLS: told, or a reason and another attempt."""

import ssl

import pytest

from agent.config.drift import WebhookSection
from agent.core.errors import TransientError
from agent.links.webhook import Webhook
from simulators.hook_receiver import HookReceiver
from tests.certificates import Authority


def hook(folder, url, **more):
    (folder / "secret").write_text("correct horse\n")
    secret = {"file": str(folder / "secret")}
    return Webhook(WebhookSection.model_validate({"url": url, "secret": secret, **more}))


async def test_over_tls_it_tells_only_whom_its_authority_vouches_for(tmp_path):
    """An event names machines and what is wrong with them: nobody else may listen."""
    good, other = Authority(tmp_path / "good"), Authority(tmp_path / "other")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*good.issue("server"))
    with HookReceiver("correct horse", tls) as far:
        await hook(tmp_path, far.base, ca=good.ca).post("e1", 1, b"{}")
        for more in ({"ca": other.ca}, {}):
            with pytest.raises(TransientError, match="E677"):
                await hook(tmp_path, far.base, **more).post("e2", 1, b"{}")
    assert [(one.event, one.signed) for one in far.requests] == [("e1", True)]


@pytest.mark.parametrize("status", [301, 404, 429, 500])
async def test_only_2xx_means_told(tmp_path, status):
    """A redirect is not followed: what is signed for one address goes to no other."""
    with HookReceiver("correct horse") as far:
        far.status = status
        with pytest.raises(TransientError, match=str(status)):
            await hook(tmp_path, far.base).post("e1", 1, b"{}")
    assert len(far.requests) == 1


async def test_who_hangs_or_is_not_there_is_left_in_time(tmp_path):
    """Neither holds the next attempt up; another secret does not pass for ours."""
    with HookReceiver("another secret") as far:
        await hook(tmp_path, far.base).post("e1", 1, b"{}")
        assert [one.signed for one in far.requests] == [False]
        far.stuck = True
        with pytest.raises(TransientError, match="E677"):
            await hook(tmp_path, far.base, timeout="100ms").post("e1", 1, b"{}")
        gone = far.base
    with pytest.raises(TransientError, match="E677"):
        await hook(tmp_path, gone).post("e1", 1, b"{}")
