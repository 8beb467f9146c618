"""The certificate of the page is replaced while the page serves."""

import asyncio
import re
import shutil
import ssl
from contextlib import suppress

from simulators.agent_process import AgentProcess
from tests.agents import configure
from tests.certificates import Authority
from tests.integration.test_commanded_agent import run_edge_agent
from tests.tools import until


class Visitor:
    """A connection of TLS 1.2 or 1.3 that stays open."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer
        subject = dict(pair for rdn in writer.get_extra_info("peercert")["subject"] for pair in rdn)
        self.shown = subject["commonName"]

    async def status(self):
        """The status code of another request over the same connection."""
        self._writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        await self._reader.readexactly(length)
        return int(head.split()[1])

    async def close(self):
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


async def visit(port, authority):
    trust = ssl.create_default_context(cafile=authority.ca)
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return Visitor(*await asyncio.open_connection("127.0.0.1", port, ssl=trust))


def put(pair, cert, key):
    for source, target in zip(pair, (cert, key), strict=True):
        shutil.copyfile(source, target)


async def test_a_renewed_pair_is_shown_after_a_reload_and_a_wrong_one_is_not(tmp_path):
    """The same paths, other files. After a reload new connections see the new certificate; those
    that are open go on. A key that is another's, or none, refuses the reload, and all stays.
    """
    authority = Authority(tmp_path / "ca")
    cert, key = tmp_path / "page.pem", tmp_path / "page.key"
    put(authority.issue("first", 5), cert, key)
    path = configure(tmp_path, web={"listen": "127.0.0.1:0", "cert": str(cert), "key": str(key)})
    async with AgentProcess(path) as agent:
        await until(lambda: "web.listening" in agent.tail(100_000))
        port = int(re.findall(r'"port": (\d+)', agent.tail(100_000))[-1])
        old = await visit(port, authority)
        assert (old.shown, await old.status()) == ("first", 200)

        second = authority.issue("second", 60)
        put(second, cert, key)
        before = await visit(port, authority)
        assert before.shown == "first"
        changed = (await agent.ask("reload"))["changed"]
        assert changed == ["certificates", "certificate of the page"]
        new = await visit(port, authority)
        assert (new.shown, await new.status(), await old.status()) == ("second", 200, 200)
        assert (await agent.ask("reload"))["changed"] == []
        _, out, _ = await run_edge_agent("doctor", "-c", path)
        assert "certificate web/page  good for 60 days" in re.sub(r"  +", "  ", out)

        put((authority.issue("third")[0], second[1]), cert, key)
        refused = await agent.ask("reload")
        assert refused["code"] == "E285"
        assert "the key is another certificate's" in refused["refused"]
        code, out, _ = await run_edge_agent("doctor", "-c", path)
        assert (code, "[E285]" in out) == (1, True)
        cert.unlink()
        assert "No such file" in (await agent.ask("reload"))["refused"]
        last = await visit(port, authority)
        assert (last.shown, await last.status(), await old.status()) == ("second", 200, 200)
        for visitor in (old, before, new, last):
            await visitor.close()
