"""A plain HTTP server as registry: static files are enough."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from agent.config.base import Context, RegistrySection, Seconds, Secret
from agent.core.errors import AgentError, ConfigError, PermanentError, TransientError
from agent.core.registry import Offer
from agent.registries.index import FILE, MAX_INDEX, check_name, parse

if TYPE_CHECKING:
    import httpx

_URL: Final = re.compile(r"^https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]+)(:\d{1,5})?(/[^\s?#]*)?$")
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}
_REDIRECTS: Final = 3
_TEMPORARY: Final = {408, 425, 429}
_STRIDE: Final = 1 << 16
_STRIDE_TIMEOUTS: Final = 6
"""64 KiB must arrive within this many timeouts: who drips bytes does not hold us for days."""


class HttpConfig(RegistrySection):
    """An HTTP server that holds ``NAME/index.json`` and the model files."""

    type: Literal["http"]
    """A web server that serves the same folder."""
    url: str
    """`https://HOST/path`."""
    token: Secret | None = None
    """Where the bearer token is."""
    ca: str | None = None
    """PEM file of the CA that signed the server's certificate."""
    timeout_s: Seconds = Field(10.0, alias="timeout", gt=0)
    """For one answer."""

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if not _URL.match(value):
            raise PydanticCustomError(
                "registry_url",
                "`{value}` is no address of an HTTP server",
                {"value": value, "code": "E660", "fix": 'Write "https://HOST/path".'},
            )
        return value

    @model_validator(mode="after")
    def _keeps_its_secret(self) -> "HttpConfig":
        address = urlsplit(self.url)
        if self.token and address.scheme == "http" and address.hostname not in _LOOPBACK:
            raise PydanticCustomError(
                "registry_token",
                "a `token` over http:// can be read by everyone on the way",
                {"code": "E661", "fix": "Use https://, with `ca` for a CA of your own."},
            )
        return self

    def build(self, name: str, ctx: Context) -> "HttpRegistry":
        """The registry on this server."""
        del ctx
        return HttpRegistry(name, self)


class HttpRegistry:
    """Port `Registry` over HTTP. Holds nothing between calls: each one connects anew."""

    def __init__(self, name: str, config: HttpConfig) -> None:
        self._name, self._config = name, config
        self._base = config.url.rstrip("/")

    async def resolve(self, name: str, channel: str, token: str | None) -> Offer | None:
        """Token: the ETag. The whole answer must be here within the timeout."""
        folder = f"{self._base}/{check_name(name)}"
        url = f"{folder}/{FILE}"
        headers = {} if not token else {"If-None-Match": token}
        data = bytearray()
        try:
            async with asyncio.timeout(self._config.timeout_s), self._get(url, headers) as answer:
                if answer.status_code == 304 and token:
                    return None
                self._expect(answer, {200})
                etag = answer.headers.get("etag", "")
                async for piece in answer.aiter_raw():
                    data += piece
                    if len(data) > MAX_INDEX:
                        break
        except TimeoutError as e:
            raise self._late(url) from e
        return parse(
            bytes(data), name, channel, where=url, locate=lambda f: f"{folder}/{f}", token=etag
        )

    async def fetch(self, offer: Offer, offset: int) -> AsyncIterator[bytes]:
        """A server that ignores Range is read from the start, and what we have is skipped."""
        if not offer.url.startswith(self._base + "/"):
            raise PermanentError(f"{offer.url} is not in this registry", code="E624")
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._get(offer.url, headers) as answer:
            self._expect(answer, {200, 206} if offset else {200})
            skip = offset if answer.status_code == 200 else 0
            self._check_range(answer, offer, offset, skip)
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
        """The body as it comes; `TransientError` when it comes too slowly."""
        loop, timeout_s = asyncio.get_running_loop(), self._config.timeout_s
        deadline, got = loop.time() + _STRIDE_TIMEOUTS * timeout_s, 0
        pieces = answer.aiter_raw()
        while True:
            try:
                async with asyncio.timeout_at(min(deadline, loop.time() + timeout_s)):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError as e:
                raise self._late(str(answer.url)) from e
            got += len(piece)
            if got >= _STRIDE:
                deadline, got = loop.time() + _STRIDE_TIMEOUTS * timeout_s, 0
            yield piece

    def _check_range(self, answer: "httpx.Response", offer: Offer, offset: int, skip: int) -> None:
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

    @asynccontextmanager
    async def _get(self, url: str, headers: dict[str, str]) -> AsyncIterator["httpx.Response"]:
        """The answer to GET, body not yet read; follows redirects within the host only."""
        import httpx  # noqa: PLC0415 - 10 MB and 100 ms that only a gateway with registries pays

        sent = {"Accept-Encoding": "identity", **headers}
        if self._config.token is not None:
            sent["Authorization"] = f"Bearer {self._config.token.read()}"
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
                        url = self._redirected(url, str(answer.next_request.url))
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
        if self._base.startswith("http://"):
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            return ssl.create_default_context(cafile=self._config.ca)
        except (OSError, ssl.SSLError) as e:
            raise ConfigError(
                f"the CA file {self._config.ca} cannot be read ({e})",
                where=f"registry {self._name}",
                fix="Give a PEM file that the user edge-agent may read.",
                code="E662",
            ) from e

    def _redirected(self, url: str, target: str) -> str:
        """*target* if it is the same host and no way from https to http."""
        old, new = urlsplit(url), urlsplit(target)
        if not _same_host(old, new):
            raise PermanentError(
                f"redirects to {new.scheme}://{new.netloc}; other hosts are not asked",
                where=url,
                fix="Write the final address as `url` of the registry.",
                code="E624",
            )
        return target

    def _expect(self, answer: "httpx.Response", wanted: set[int]) -> None:
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
            what, where=url, fix=f"Correct `token` of the registry `{name}`.", code="E622"
        )
    if status in {404, 410}:
        return PermanentError(
            what, where=url, fix="Publish the model, or correct `url` or the name.", code="E617"
        )
    return PermanentError(
        what, where=url, fix="Correct `url`: this is no file server.", code="E623"
    )
