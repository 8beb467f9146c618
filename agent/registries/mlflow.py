"""An MLflow server as registry of models: aliases are channels. Plain REST, no mlflow.

MLflow has no checksums, and a registered version can be overwritten by anybody who may write: a
version is described by its tags, and believed only when a signed manifest says the same.
"""

import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

from agent.codecs.envelope import MAX_ENVELOPE
from agent.config.base import Context
from agent.core.errors import PermanentError
from agent.core.registry import Offer, Piece
from agent.registries.answers import lie, load, short
from agent.registries.index import MAX_INDEX, MAX_MODEL, check_name
from agent.registries.web import Web, WebSection

_API: Final = "/api/2.0"
_STORED: Final = re.compile(r"mlflow-artifacts:(?://[^/]*)?/+([A-Za-z0-9_./-]+)")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

FILE: Final = "model.onnx"
MANIFEST_FILE: Final = "edge.manifest"
"""Names of the two files among the artefacts of a version."""


class MlflowConfig(WebSection):
    """An MLflow server that holds models, and gives their files itself."""

    schemes = ("mlflow", "mlflow+http")
    example = "mlflow://HOST:5000"

    type: Literal["mlflow"]
    """An MLflow server: aliases are channels."""

    def build(self, name: str, ctx: Context) -> "MlflowRegistry":
        """The registry on this server."""
        del ctx
        return MlflowRegistry(name, self)


class MlflowRegistry:
    """Port `Registry` over two calls of MLflow's REST interface, and its artefact proxy."""

    def __init__(self, name: str, config: MlflowConfig) -> None:
        self._web, self._base = Web(name, config), config.base + _API

    async def resolve(self, name: str, channel: str, token: str | None) -> Offer | None:
        """Token: hash of the version and its tags, for the server has no ETag here."""
        query = urlencode({"name": check_name(name), "alias": channel})
        url = f"{self._base}/mlflow/registered-models/alias?{query}"
        status, _, data = await self._web.read(url, self._web.secret(), MAX_INDEX, {200, 400})
        if status == 400:
            raise PermanentError(
                f"model `{name}` has no alias `{channel}`",
                where=url,
                fix="Correct `channel` of the model, or set the alias in MLflow.",
                code="E613",
            )
        found = load(data, MAX_INDEX, url).get("model_version")
        if not isinstance(found, dict):
            lie("the answer has no model version", url, "E612")
        tags = _tags(found)
        number = str(found.get("version"))
        facts = json.dumps([number, sorted(tags.items()), found.get("source")])
        now = hashlib.sha256(facts.encode()).hexdigest()
        if now == token:
            return None
        return await self._offer(name, number, tags, now, url)

    async def _offer(
        self, name: str, number: str, tags: dict[str, str], token: str, url: str
    ) -> Offer:
        version = tags.get("edge.version", number)
        release = _number(tags.get("edge.release", number), 2**53, "edge.release", url)
        size = _number(tags.get("edge.size"), MAX_MODEL, "edge.size", url)
        sha256 = tags.get("edge.sha256", "")
        if not _SHA256.fullmatch(sha256):
            lie(f"the tag edge.sha256 is {short(sha256)}, not 64 hex digits", url, "E614")
        folder = await self._folder(name, number)
        piece = None
        if "edge.manifest_size" in tags:
            length = tags["edge.manifest_size"]
            length_bytes = _number(length, MAX_ENVELOPE, "edge.manifest_size", url)
            piece = Piece(f"{folder}/{MANIFEST_FILE}", length_bytes)
        return Offer(name, version, release, sha256, size, f"{folder}/{FILE}", token, piece)

    async def _folder(self, name: str, number: str) -> str:
        """Where the artefacts of a version are, through the server's own proxy."""
        query = urlencode({"name": name, "version": number})
        url = f"{self._base}/mlflow/model-versions/get-download-uri?{query}"
        _, _, data = await self._web.read(url, self._web.secret(), MAX_INDEX, {200})
        place = str(load(data, MAX_INDEX, url).get("artifact_uri"))
        found = _STORED.fullmatch(place)
        if found is None or ".." in found[1].split("/"):
            raise PermanentError(
                f"its files are at {place!r:.80}, which the server does not give",
                where=url,
                fix="Run MLflow with --serve-artifacts and --artifacts-destination.",
                code="E623",
            )
        return f"{self._base}/mlflow-artifacts/artifacts/{quote(found[1].strip('/'))}"

    async def fetch(self, offer: Offer, offset: int) -> AsyncIterator[bytes]:
        if not offer.url.startswith(self._base + "/"):
            raise PermanentError(f"{offer.url} is not in this registry", code="E624")
        async with aclosing(self._web.fetch(offer, offset, self._web.secret())) as pieces:
            async for piece in pieces:
                yield piece


def _tags(found: dict[str, Any]) -> dict[str, str]:
    """Tags of a version; what is no pair of texts is left out."""
    tags = found.get("tags")
    return {
        str(one.get("key")): str(one.get("value"))
        for one in (tags if isinstance(tags, list) else ())
        if isinstance(one, dict)
    }


def _number(text: str | None, limit: int, what: str, url: str) -> int:
    if text is None or not text.isdecimal() or len(text) > 16 or not 1 <= int(text) <= limit:
        lie(f"the tag {what} is {short(text)}, not 1 to {limit}", url, "E614")
    return int(text)
