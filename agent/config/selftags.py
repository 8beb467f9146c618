"""The names of the agent's own numbers: alarms on `agent/...` are checked against them."""

import difflib
from collections.abc import Collection, Mapping
from typing import Final

FIXED: Final = (
    "alarms.active",
    "alarms.unacked",
    "alarms.withheld",
    "clock.steps",
    "clock.synced",
    "commands.dropped",
    "commands.received",
    "commands.refused",
    "commands.unanswered",
    "cpu_percent",
    "disk_free_bytes",
    "disk_used_percent",
    "host.cpu_percent",
    "host.memory_percent",
    "host.net_errors_per_s",
    "host.net_received_bytes",
    "host.net_sent_bytes",
    "host.temperature_degC",
    "inference.lost_calls",
    "inference.predict_ms.p50",
    "inference.predict_ms.p99",
    "inference.quarantined",
    "inference.restarts",
    "journal.bytes",
    "journal.commit_ms.p50",
    "journal.commit_ms.p99",
    "journal.dropped_rows",
    "journal.durable",
    "journal.evicted_rows",
    "journal.rows",
    "journal.wear_bytes_per_day",
    "journal.written_bytes",
    "ledger.off_rows",
    "loop.lateness_ms.p50",
    "loop.lateness_ms.p99",
    "loop.tasks",
    "models.out",
    "models.stale_events",
    "open_files",
    "pipeline.rows",
    "pipeline.rows_per_s",
    "rss_bytes",
    "writes.asked",
)
"""Names that do not depend on the configuration; a test compares them with what is counted."""


def mistake(tag: str, named: Mapping[str, Collection[str]]) -> str | None:
    """Why *tag* (``agent/...``) will never be there, as the fix; None when it may be.

    *named* has the names in the configuration by kind: ``{"sink": ["plant"], ...}``. Other kinds,
    and numbers that resemble none, may be an adapter's own.
    """
    name = tag.removeprefix("agent/")
    if "/" in name:
        kind, _, rest = name.partition("/")
        known = named.get(kind)
        if known is None or any(rest.startswith(f"{k}.") for k in known):
            return None
        return f"Known: {', '.join(f'agent/{kind}/{k}.*' for k in known) or f'no {kind}'}."
    if name in FIXED:
        return None
    close = difflib.get_close_matches(name, FIXED, n=1, cutoff=0.75)
    return f"did you mean `agent/{close[0]}`?" if close else None
