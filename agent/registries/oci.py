"""A container registry as registry of models: ModelPack artefacts with our manifest as a layer.

Repository = prefix of the address + name of the model, tag = channel. What a tag points to may
change, so nothing is believed of it but digests, and those only because a signature covers them.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlencode, urlsplit

from agent.codecs.envelope import MANIFEST, MAX_ENVELOPE
from agent.config.base import Context
from agent.core.errors import PermanentError, TransientError
from agent.core.registry import Offer, Piece
from agent.registries.answers import lie, load, short
from agent.registries.index import MAX_INDEX, MAX_MODEL, check_name
from agent.registries.web import Web, WebSection

if TYPE_CHECKING:
    import httpx

_REPOSITORY: Final = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_CHALLENGE: Final = re.compile(r'(\w+)="([^"]*)"')
_IMAGE: Final = "application/vnd.oci.image.manifest.v1+json"
_MAX_LAYERS: Final = 100
_MAX_TOKEN: Final = 1 << 16

WEIGHTS: Final = "application/vnd.cncf.model.weight.v1.raw"
"""Media type of the model file (ModelPack)."""

VERSION: Final = "org.opencontainers.image.version"
RELEASE: Final = "io.edge-agent.release"
"""Annotations of the image manifest."""


class OciConfig(WebSection):
    """A container registry that holds models as artefacts."""

    schemes = ("oci", "oci+http")
    example = "oci://HOST/prefix"

    type: Literal["oci"]
    """A container registry: ModelPack artefacts."""

    def build(self, name: str, ctx: Context) -> "OciRegistry":
        """The registry on this server."""
        del ctx
        return OciRegistry(name, self)


class OciRegistry:
    """Port `Registry` over the distribution protocol of OCI."""

    def __init__(self, name: str, config: OciConfig) -> None:
        self._web, self._name, self._config = Web(name, config), name, config
        parts = urlsplit(config.base)
        self._server = f"{parts.scheme}://{parts.netloc}/v2"
        self._prefix = parts.path.strip("/")
        self._bearer: dict[str, str] = {}

    async def resolve(self, name: str, channel: str, token: str | None) -> Offer | None:
        """Token: the digest of the manifest, which is its ETag as well."""
        repository = f"{self._prefix}/{check_name(name)}".strip("/")
        if not _REPOSITORY.fullmatch(repository) or not _TAG.fullmatch(channel):
            raise PermanentError(
                f"`{repository}:{channel}` cannot be in a container registry",
                where=f"registry {self._name}",
                fix="Use small letters, digits, `-`, `_` and `.` for the name.",
                code="E616",
            )
        url = f"{self._server}/{repository}/manifests/{channel}"
        headers = {"Accept": _IMAGE} | ({"If-None-Match": f'"{token}"'} if token else {})
        status, _, data = await self._ask(url, headers, {200, 304} if token else {200}, repository)
        if status == 304:
            return None
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if digest == token:
            return None
        image = load(data, MAX_INDEX, url)
        return self._offer(image, name, f"{self._server}/{repository}/blobs/", digest, url)

    async def fetch(self, offer: Offer, offset: int) -> AsyncIterator[bytes]:
        """Blobs may lie on another host, which is asked without our secret."""
        if not offer.url.startswith(self._server + "/"):
            raise PermanentError(f"{offer.url} is not in this registry", code="E624")
        secret = self._bearer or self._web.secret()
        try:
            async with aclosing(self._web.fetch(offer, offset, secret, elsewhere=True)) as pieces:
                async for piece in pieces:
                    yield piece
        except PermanentError as e:
            if e.code != "E622" or not self._bearer:
                raise
            raise TransientError(
                "the token of the registry's token service is over",
                where=offer.url,
                fix="It is asked for again with the next poll.",
                code="E621",
            ) from e

    def _offer(self, image: dict[str, Any], name: str, blobs: str, digest: str, url: str) -> Offer:
        layers = image.get("layers")
        if not isinstance(layers, list) or len(layers) > _MAX_LAYERS:
            lie("it is no image manifest with layers", url, "E612")
        sha256, size = _layer(layers, WEIGHTS, MAX_MODEL, url)
        notes = image.get("annotations")
        notes = notes if isinstance(notes, dict) else {}
        version, release = notes.get(VERSION), str(notes.get(RELEASE))
        if not isinstance(version, str) or not release.isdecimal() or len(release) > 15:
            lie(f"it lacks the annotations {VERSION} and {RELEASE}", url, "E614")
        piece = None
        if any(isinstance(one, dict) and one.get("mediaType") == MANIFEST for one in layers):
            blob, length = _layer(layers, MANIFEST, MAX_ENVELOPE, url)
            piece = Piece(f"{blobs}sha256:{blob}", length)
        return Offer(
            name, version, int(release), sha256, size, f"{blobs}sha256:{sha256}", digest, piece
        )

    async def _ask(
        self, url: str, headers: Mapping[str, str], wanted: set[int], repository: str
    ) -> tuple[int, "httpx.Headers", bytes]:
        """One answer; when the registry wants a token of its own, with one."""
        secret = self._bearer or self._web.secret()
        answer = await self._web.read(url, {**headers, **secret}, MAX_INDEX, {*wanted, 401})
        if answer[0] != 401:
            return answer
        self._bearer = await self._token(answer[1].get("www-authenticate", ""), repository, url)
        return await self._web.read(url, {**headers, **self._bearer}, MAX_INDEX, wanted)

    async def _token(self, challenge: str, repository: str, url: str) -> dict[str, str]:
        """What the token service that the registry names gives us."""
        asked = dict(_CHALLENGE.findall(challenge))
        realm = asked.get("realm", "")
        if not challenge.lower().startswith("bearer") or not realm.startswith(
            ("https://", self._server.removesuffix("v2"))
        ):
            raise PermanentError(
                "the registry refuses access",
                where=url,
                fix=f"Correct `user` and `password`, or `token`, of the registry `{self._name}`.",
                code="E622",
            )
        query = {"service": asked.get("service", ""), "scope": f"repository:{repository}:pull"}
        secret = self._web.secret() if _related(self._server, realm) else {}
        _, _, data = await self._web.read(f"{realm}?{urlencode(query)}", secret, _MAX_TOKEN, {200})
        answer = load(data, _MAX_TOKEN, realm)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            lie("the token service gives no token", realm, "E622")
        return {"Authorization": f"Bearer {token}"}


def _related(server: str, realm: str) -> bool:
    """May the token service *realm* know our secret: the same host, or one of the same domain."""
    here, there = urlsplit(server).hostname or "", urlsplit(realm).hostname or ""
    above = here.partition(".")[2]
    return there == here or ("." in above and above in {there, there.partition(".")[2]})


def _layer(layers: list[Any], media_type: str, limit: int, url: str) -> tuple[str, int]:
    """SHA-256 and size of the one layer of a type."""
    found = [one for one in layers if isinstance(one, dict) and one.get("mediaType") == media_type]
    if len(found) != 1:
        lie(f"it has {len(found)} layers of type {media_type}, not one", url, "E614")
    digest, size = _DIGEST.fullmatch(str(found[0].get("digest"))), found[0].get("size")
    if digest is None or type(size) is not int or not 1 <= size <= limit:
        lie(f"a layer has digest {short(found[0].get('digest'))}, size {short(size)}", url, "E614")
    return digest[1], size
