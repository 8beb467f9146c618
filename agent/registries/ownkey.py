"""The gateway's own key: it signs what was learned here, and nobody else believes it.

It never leaves the data folder: no backup, no bundle and no verb has it.
"""

import os
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Final

from agent.codecs import envelope as dsse
from agent.codecs.envelope import Envelope
from agent.core.errors import TransientError

FILE: Final = "own.key"
"""Below the data folder; left out of every backup (`agent.storage.backup`)."""

_SEED: Final = 32


class OwnKey:
    """Made when it is first needed, readable by the agent's user only."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE

    def public(self) -> bytes:
        """What its signatures are checked with. Blocks, as `sign` does; raises `TransientError`."""
        return dsse.public_of(self._seed())

    def sign(self, envelope: Envelope) -> bytes:
        """The signed file."""
        return dsse.write(dsse.sign(envelope, self._seed()))

    def _seed(self) -> bytes:
        """A key that cannot be read is replaced: what it has signed is learned anew."""
        try:
            seed = b64decode(self._path.read_bytes())
            return seed if len(seed) == _SEED else self._new()
        except (FileNotFoundError, ValueError):
            return self._new()
        except OSError as e:
            raise self._error(e) from e

    def _new(self) -> bytes:
        seed, _ = dsse.generate()
        part = self._path.with_suffix(".part")
        try:
            part.unlink(missing_ok=True)
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(b64encode(seed))
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as e:
            raise self._error(e) from e
        return seed

    def _error(self, error: OSError) -> TransientError:
        return TransientError(
            f"the gateway's own key cannot be kept ({error.strerror})",
            where=str(self._path),
            fix="Free space on the disk of data_dir, or give it back to the user edge-agent.",
            code="E698",
        )
