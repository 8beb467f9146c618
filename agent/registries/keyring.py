"""The keyring: which keys may sign which models, itself signed by the offline root key."""

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from agent.codecs.envelope import key_id, public_key
from agent.config.base import Section
from agent.config.manifest import told
from agent.config.manifest_parts import Time
from agent.core.errors import PermanentError


def _key(value: object) -> object:
    try:
        public_key(str(value))
    except ValueError as e:
        raise PydanticCustomError("key", "{why}", {"why": str(e)}) from e
    return value


PublicKey = Annotated[str, BeforeValidator(_key)]
"""``ed25519:`` and 32 bytes in base64, as `edge-agent models keygen` prints it."""


class KeySection(Section):
    """One key, and what it is trusted with."""

    public: PublicKey
    not_after: Time | None = None
    """After this the key signs nothing new."""
    models: list[str] = Field(min_length=1)
    """Patterns of model names."""
    owner: str = ""

    @property
    def id(self) -> str:
        """What signatures name it."""
        return key_id(public_key(self.public))


class KeyringFile(Section):
    """All keys that count now: one that is missing is revoked."""

    release: int = Field(ge=1, lt=2**53)
    """Rises with every keyring: an older one is never taken back."""
    created: Time
    keys: list[KeySection] = Field(max_length=100)


def read(payload: bytes, where: str) -> KeyringFile:
    """The keyring in *payload*; `PermanentError` (E683) when it is none."""
    try:
        return KeyringFile.model_validate_json(payload)
    except ValidationError as e:
        raise PermanentError(
            f"the keyring is not as it must be ({told(e)})",
            where=where,
            fix="Correct it and sign it again with the root key.",
            code="E683",
        ) from e
