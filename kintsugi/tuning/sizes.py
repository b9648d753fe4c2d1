"""Amounts of memory as people write and read them: 2GB is 2 * 10**9 bytes, 2GiB is 2 * 2**30. Pure."""

import re

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_WRITTEN = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]I?)?B?\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Raises ValueError that says what is wrong with it."""
    match = _WRITTEN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r}, must be a number of bytes such as 500MB, 2GB or 1.5GiB")
    amount = int(float(match["number"]) * _UNITS[(match["unit"] or "").upper()])
    if amount < 1:
        raise ValueError(f"{text!r}, must be at least one byte")
    return amount


def show_bytes(amount: float) -> str:
    """Three digits in the largest unit of a thousand that leaves something before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:,.3g} TB" if amount < 999.5 else f"{amount:,.0f} TB"
