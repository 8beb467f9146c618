"""Numbers as people read them on a terminal."""

import pytest

from agent.cli.table import number


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (3, "3"),
        ("closed", "closed"),
        (0.123456789, "0.12346"),
        (31.25, "31.25"),
        (99999.4, "99999"),
        (123456.7, "123457"),
        (1795596726.079, "1795596726"),
        (-2500000.0, "-2500000"),
        (1e30, "1e+30"),
        (1.5e-9, "1.5e-09"),
    ],
)
def test_a_number_loses_no_digit_before_the_point(value, shown):
    """A counter, or a time, is no power of ten."""
    assert number(value) == shown
