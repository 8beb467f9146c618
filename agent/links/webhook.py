"""A signed POST, as Standard Webhooks has it: any library for those can check it.

``webhook-id`` names the event, the same in every attempt; ``webhook-signature`` is HMAC-SHA256
over id, time and body. Whoever does not know the secret can neither make one up nor send an old
one again.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.config.drift import WebhookSection
from agent.core.errors import ConfigError, TransientError
from agent.links.tls import trusting

_PREFIX: Final = "whsec_"


def signature(secret: str, event: str, at_s: int, body: bytes) -> str:
    """The value of ``webhook-signature``. A *secret* ``whsec_...`` is base64, others are text."""
    key = secret.encode()
    if secret.startswith(_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error as e:
            raise ConfigError(
                "the secret of a webhook begins with whsec_, but what follows is no base64",
                fix="Copy it anew, or write any other text.",
                code="E677",
            ) from e
    signed = f"{event}.{at_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


@dataclass(frozen=True, slots=True)
class Webhook:
    """One far side. Every call connects anew, follows no redirects, and ends within the timeout."""

    section: WebhookSection

    async def post(self, event: str, at_s: int, body: bytes) -> None:
        """Tell it; `TransientError` (E677) unless it answers 2xx."""
        await self._send("POST", self.section.url, event, at_s, body, "application/json")

    async def upload(self, event: str, at_s: int, file: Path) -> str:
        """Put a sample below `upload`; where it is now."""
        url = f"{(self.section.upload or '').rstrip('/')}/{file.name}"
        try:
            data = await asyncio.to_thread(file.read_bytes)
        except OSError as e:
            raise TransientError(
                f"the drift sample cannot be read ({e.strerror})",
                where=str(file),
                fix="`edge-agent models ack` the event if the sample is gone for good.",
                code="E679",
            ) from e
        kind = "text/csv" if file.suffix == ".csv" else "application/vnd.apache.parquet"
        await self._send("PUT", url, event, at_s, data, kind)
        return url

    async def _send(
        self, how: str, url: str, event: str, at_s: int, body: bytes, kind: str
    ) -> None:
        import httpx  # noqa: PLC0415 - 10 MB and 100 ms that only who has a webhook pays

        headers = {
            "Content-Type": kind,
            "webhook-id": event,
            "webhook-timestamp": str(at_s),
            "webhook-signature": signature(self.section.secret.read(), event, at_s, body),
        }
        try:
            async with (
                asyncio.timeout(self.section.timeout_s),
                httpx.AsyncClient(
                    verify=await asyncio.to_thread(self._tls),
                    trust_env=False,
                    timeout=self.section.timeout_s,
                ) as client,
                client.stream(how, url, content=body, headers=headers) as answer,
            ):
                status = answer.status_code
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, UnicodeError) as e:
            raise self._failed(url, str(e) or type(e).__name__) from e
        if not 200 <= status < 300:
            raise self._failed(url, f"status {status}")

    def _tls(self) -> ssl.SSLContext:
        try:
            return trusting(self.section.ca)
        except (OSError, ssl.SSLError) as e:
            raise self._failed(str(self.section.ca), str(e)) from e

    def _failed(self, url: str, why: str) -> TransientError:
        return TransientError(
            f"the webhook cannot be told ({why:.120})",
            where=url,
            fix="Check `drift: webhook` of the model and the far side; it is tried again.",
            code="E677",
        )
