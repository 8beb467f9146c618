"""The error tree. Every error says what happened, where, and what to do."""


class AgentError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        what: The fact, in one clause, with the offending value.
        where: ``file:line``, ``source/press1``, ``tag press1/oil_temp`` ...
        fix: The operator's next step, imperative; empty when there is none.
        code: Stable code (``E101``), never reused; listed in docs/operations.md.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "", code: str = "") -> None:
        self.what, self.where, self.fix, self.code = what, where, fix, code
        text = f"{where}: {what}" if where else what
        text = f"{text}. {fix}" if fix else text
        super().__init__(f"[{code}] {text}" if code else text)


class TransientError(AgentError):
    """Time may cure it: the supervisor retries with backoff."""


class PermanentError(AgentError):
    """Only an operator can cure it: the supervisor parks the unit until its config changes."""


class ConfigError(PermanentError):
    """The configuration is refused as a whole; nothing that runs is touched."""
