"""What journals of tests are bounded by."""

from types import SimpleNamespace

from agent.config.journal import JournalConfig


def limits(**changed):
    """Commits at once, room and time for everything; with what a test changes."""
    usual = {"commit_s": 0.05, "keep_s": 7 * 86400.0, "keep_labelled_s": 90 * 86400.0,
             "max_size": 2_000_000_000, "min_free": 0, "wear_per_day": 10**12,
             "shares": JournalConfig.model_validate({}).shares}  # fmt: skip
    return SimpleNamespace(**(usual | changed))
