"""Amounts of memory, written and read."""

import pytest

from kintsugi.tuning.sizes import parse_bytes, show_bytes


@pytest.mark.parametrize(
    ("text", "amount"),
    [("2GB", 2 * 10**9), ("2 gb", 2 * 10**9), ("1.5GiB", 1.5 * 2**30), ("500M", 5e8), ("12", 12), ("1TiB", 2**40)],
)
def test_sizes_are_read_as_people_write_them(text, amount):
    """Decimal units are powers of a thousand, binary ones of 1024."""
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "two", "-1GB", "0", "1PB", "GB", "1e9"])
def test_what_is_no_size_is_refused(text):
    """The message shows what would be."""
    with pytest.raises(ValueError, match="must be"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(12, "12 B"), (1234, "1.23 kB"), (999_600, "1 MB"), (2e9, "2 GB"), (3.25e12, "3.25 TB"), (2e15, "2,000 TB")],
)
def test_sizes_are_shown_in_three_digits(amount, text):
    """In the unit that fits."""
    assert show_bytes(amount) == text
