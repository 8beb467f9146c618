"""What every registry on a web server shares: asking, believing little, reading within bounds."""

import asyncio
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from agent.config.base import Bytes, RegistrySection, Seconds, Secret
from agent.config.cures import readable
from agent.core.errors import AgentError, ConfigError, PermanentError, TransientError
from agent.core.registry import Offer
from agent.links.tls import trusting

if TYPE_CHECKING:
    import httpx

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]+)(:\d{1,5})?(/[^\s?#]*)?$")
"""What follows ``scheme://`` in the address of a registry."""

_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}
_REDIRECTS: Final = 3
_TEMPORARY: Final = {408, 425, 429}
_STRIDE: Final = 1 << 16
_STRIDE_TIMEOUTS: Final = 6
"""64 KiB must arrive within this many timeouts: who drips bytes does not hold us for days."""


class WebSection(RegistrySection):
    """Base of the sections of registries behind HTTP."""

    url: str
    """Address of the registry."""
    token: Secret | None = None
    """Bearer token: `{file: PATH}` or `{credential: NAME}`."""
    user: str | None = None
    """Name for basic authentication, with `password`."""
    password: Secret | None = None
    """Password: `{file: PATH}` or `{credential: NAME}`."""
    ca: str | None = None
    """PEM file with the CA that signs the registry, in place of those of the system."""
    timeout_s: Seconds = Field(10.0, alias="timeout", gt=0)
    """How long an answer may take."""
    rate: Bytes | None = Field(None, ge=1000)
    """At most so many bytes are fetched each second; for lines that cost, or are narrow."""

    schemes: ClassVar[tuple[str, str]]
    """How an address begins: with TLS, and without, for a wire of one's own."""
    example: ClassVar[str]
    """An address."""

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        scheme, _, rest = value.partition("://")
        if scheme not in cls.schemes or not _HOST.match(rest):
            raise PydanticCustomError(
                "registry_url",
                "`{value}` is no address of such a registry",
                {"value": value, "code": "E660", "fix": f'Write "{cls.example}".'},
            )
        return value

    @property
    def base(self) -> str:
        """Address with ``https:`` or ``http:``, without a slash at its end."""
        scheme, _, rest = self.url.rstrip("/").partition("://")
        return f"{'https' if scheme == self.schemes[0] else 'http'}://{rest}"

    @model_validator(mode="after")
    def _keeps_its_secret(self) -> "WebSection":
        if (self.user is None) != (self.password is None) or (self.user and self.token):
            raise PydanticCustomError(
                "registry_user",
                "write `token`, or `user` and `password`",
                {"code": "E661", "fix": "Add what is missing, or remove what is too much."},
            )
        address = urlsplit(self.base)
        secret = self.token or self.password
        if secret and address.scheme == "http" and address.hostname not in _LOOPBACK:
            raise PydanticCustomError(
                "registry_token",
                "a `token` or `password` over http:// can be read by everyone on the way",
                {"code": "E661", "fix": "Use https://, with `ca` for a CA of your own."},
            )
        return self


class Web:
    """Requests to one server. Holds nothing between calls: each one connects anew."""

    def __init__(self, name: str, config: WebSection) -> None:
        self._name, self._config = name, config

    def secret(self) -> dict[str, str]:
        """The header that says who asks, as configured."""
        c = self._config
        if c.token is not None:
            return {"Authorization": f"Bearer {c.token.read()}"}
        if c.user is not None and c.password is not None:
            pair = b64encode(f"{c.user}:{c.password.read()}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {}

    async def read(
        self, url: str, headers: Mapping[str, str], limit: int, wanted: set[int]
    ) -> tuple[int, "httpx.Headers", bytes]:
        """Status, headers and body, at most *limit* + 1 bytes; all of it within the timeout."""
        data = bytearray()
        try:
            async with (
                asyncio.timeout(self._config.timeout_s),
                self.get(url, headers) as answer,
            ):
                self.expect(answer, wanted)
                async for piece in answer.aiter_raw():
                    data += piece
                    if len(data) > limit:
                        break
                return answer.status_code, answer.headers, bytes(data[: limit + 1])
        except TimeoutError as e:
            raise self._late(url) from e

    async def fetch(
        self, offer: Offer, offset: int, headers: Mapping[str, str], *, elsewhere: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """The file of *offer* from *offset* on.

        A server that ignores Range is read from the start, and what we have is skipped.
        """
        span = {"Range": f"bytes={offset}-"} if offset else {}
        async with self.get(offer.url, {**headers, **span}, elsewhere=elsewhere) as answer:
            self.expect(answer, {200, 206} if offset else {200})
            skip = offset if answer.status_code == 200 else 0
            _check_range(answer, offer, offset, skip)
            left = offer.size - offset
            async for piece in self._pieces(answer):
                chunk = piece[skip : skip + left]
                skip = max(0, skip - len(piece))
                left -= len(chunk)
                if chunk:
                    yield chunk
                if left <= 0:
                    return

    async def _pieces(self, answer: "httpx.Response") -> AsyncIterator[bytes]:
        """The body as it comes, no faster than `rate`; `TransientError` when it is too slow."""
        loop, timeout_s = asyncio.get_running_loop(), self._config.timeout_s
        deadline, got = loop.time() + _STRIDE_TIMEOUTS * timeout_s, 0
        free_s = loop.time()
        pieces = answer.aiter_raw()
        while True:
            try:
                async with asyncio.timeout_at(min(deadline, loop.time() + timeout_s)):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError as e:
                raise self._late(str(answer.url)) from e
            if self._config.rate is not None:
                free_s = max(free_s, loop.time()) + len(piece) / self._config.rate
                deadline += max(0.0, free_s - loop.time())
                await asyncio.sleep(free_s - loop.time())
            got += len(piece)
            if got >= _STRIDE:
                deadline, got = loop.time() + _STRIDE_TIMEOUTS * timeout_s, 0
            yield piece

    @asynccontextmanager
    async def get(
        self, url: str, headers: Mapping[str, str], *, elsewhere: bool = False
    ) -> AsyncIterator["httpx.Response"]:
        """The answer to GET, body not yet read; follows redirects within the host only.

        With *elsewhere* it follows to other hosts as well, over https and without secrets.
        """
        import httpx  # noqa: PLC0415 - 10 MB and 100 ms that only a gateway with registries pays

        sent = {"Accept-Encoding": "identity", **headers}
        try:
            async with httpx.AsyncClient(
                verify=await asyncio.to_thread(self._tls),
                trust_env=False,
                timeout=self._config.timeout_s,
            ) as client:
                for _ in range(_REDIRECTS + 1):
                    async with client.stream("GET", url, headers=sent) as answer:
                        if answer.next_request is None:
                            yield answer
                            return
                        target = str(answer.next_request.url)
                        if not _same_host(urlsplit(url), urlsplit(target)):
                            self._may_leave(url, target, elsewhere=elsewhere)
                            sent.pop("Authorization", None)
                        url = target
            raise PermanentError(
                f"more than {_REDIRECTS} redirects", where=url, fix="Correct `url`.", code="E624"
            )
        except httpx.TimeoutException as e:
            raise self._late(url) from e
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as e:
            # texts without numbers that change: an error that stays is reported once
            broken = isinstance(e, httpx.RemoteProtocolError)
            why = "it breaks off, or answers no HTTP" if broken else str(e) or type(e).__name__
            raise TransientError(
                f"the registry cannot be reached ({why})",
                where=url,
                fix="Check address, network, certificate and the clock of this gateway.",
                code="E620",
            ) from e

    def _tls(self) -> ssl.SSLContext:
        """The trust: the system's, or only `ca`. Not loaded for http://, where nobody asks."""
        if self._config.base.startswith("http://"):
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            return trusting(self._config.ca)
        except (OSError, ssl.SSLError) as e:
            raise ConfigError(
                f"the CA file {self._config.ca} cannot be read ({e})",
                where=f"registry {self._name}",
                fix=readable(self._config.ca)
                or "Give a PEM file that the user edge-agent may read.",
                code="E662",
            ) from e

    def _may_leave(self, url: str, target: str, *, elsewhere: bool) -> None:
        """`PermanentError` unless the registry may send us to another host, and does so safely."""
        new = urlsplit(target)
        if elsewhere and (new.scheme == "https" or self._config.base.startswith("http://")):
            return
        raise PermanentError(
            f"redirects to {new.scheme}://{new.netloc}; other hosts are not asked",
            where=url,
            fix="Write the final address as `url` of the registry.",
            code="E624",
        )

    def expect(self, answer: "httpx.Response", wanted: set[int]) -> None:
        """`AgentError` for every status that is not *wanted* and every encoded body."""
        status = answer.status_code
        if status not in wanted:
            raise _refusal(status, str(answer.url), self._name)
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise PermanentError(
                "sends the body encoded though asked not to",
                where=str(answer.url),
                fix="Switch compression off for model files and index.",
                code="E625",
            )

    def _late(self, url: str) -> TransientError:
        return TransientError(
            f"no answer, or one too slow, with a timeout of {self._config.timeout_s:g} s",
            where=url,
            fix="Check the network, or raise `timeout` of the registry.",
            code="E620",
        )


def _check_range(answer: "httpx.Response", offer: Offer, offset: int, skip: int) -> None:
    """Believe neither a range we did not ask for nor a file of another size."""
    if answer.status_code == 206:
        wanted = f"bytes {offset}-"
        if not answer.headers.get("content-range", "").startswith(wanted):
            raise PermanentError(
                f"answers with range {answer.headers.get('content-range')!r:.80}, "
                f"asked for byte {offset} on",
                where=offer.url,
                fix="Correct the server or the proxy before it.",
                code="E625",
            )
    told = answer.headers.get("content-length", "")
    if told.isdecimal() and int(told) < offer.size - offset + skip:
        raise PermanentError(
            f"has {int(told) + (0 if skip else offset)} bytes, the index says {offer.size}",
            where=offer.url,
            fix="Upload the whole file, then the index.",
            code="E630",
        )


def _same_host(old: SplitResult, new: SplitResult) -> bool:
    if new.hostname != old.hostname:
        return False
    upgrade = (old.scheme, new.scheme) == ("http", "https")
    return upgrade or (new.scheme, new.port) == (old.scheme, old.port)


def _refusal(status: int, url: str, name: str) -> AgentError:
    """The error for an HTTP status: what time may cure is transient."""
    what = f"the server answers with status {status}"
    if status >= 500 or status in _TEMPORARY:
        return TransientError(what, where=url, fix="See the log of the server.", code="E621")
    if status in {401, 403, 407}:
        return PermanentError(
            what,
            where=url,
            fix=f"Correct `token`, or `user` and `password`, of the registry `{name}`.",
            code="E622",
        )
    if status in {404, 410}:
        return PermanentError(
            what, where=url, fix="Publish the model, or correct `url` or the name.", code="E617"
        )
    return PermanentError(
        what, where=url, fix="Correct `url`: this is no such registry.", code="E623"
    )
