"""A plain HTTP server as registry: static files are enough."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Literal

from agent.config.base import Context
from agent.core.errors import PermanentError
from agent.core.registry import Offer
from agent.registries.index import FILE, MAX_INDEX, check_name, parse
from agent.registries.web import Web, WebSection


class HttpConfig(WebSection):
    """An HTTP server that holds ``NAME/index.json`` and the model files."""

    schemes = ("https", "http")
    example = "https://HOST/path"

    type: Literal["http"]
    """A web server that serves the same folder."""

    def build(self, name: str, ctx: Context) -> "HttpRegistry":
        """The registry on this server."""
        del ctx
        return HttpRegistry(name, self)


class HttpRegistry:
    """Port `Registry` over HTTP."""

    def __init__(self, name: str, config: HttpConfig) -> None:
        self._web, self._base = Web(name, config), config.base

    async def resolve(self, name: str, channel: str, token: str | None) -> Offer | None:
        """Token: the ETag. The whole answer must be here within the timeout."""
        folder = f"{self._base}/{check_name(name)}"
        url = f"{folder}/{FILE}"
        headers = self._web.secret() | ({"If-None-Match": token} if token else {})
        wanted = {200, 304} if token else {200}
        status, found, data = await self._web.read(url, headers, MAX_INDEX, wanted)
        if status == 304:
            return None
        etag = found.get("etag", "")
        return parse(data, name, channel, where=url, locate=lambda f: f"{folder}/{f}", token=etag)

    async def fetch(self, offer: Offer, offset: int) -> AsyncIterator[bytes]:
        if not offer.url.startswith(self._base + "/"):
            raise PermanentError(f"{offer.url} is not in this registry", code="E624")
        async with aclosing(self._web.fetch(offer, offset, self._web.secret())) as pieces:
            async for piece in pieces:
                yield piece
