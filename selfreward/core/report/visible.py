"""Text as it may be shown: control characters become their pictures, direction overrides their names.

HTML cannot carry most control characters, and U+202E and its kin would let a candidate turn around the text beside it.
"""

from __future__ import annotations

from typing import Any

LONGEST = 4000
"""Characters of one text that are shown; the rest is counted."""

_PICTURES: dict[int, str] = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
_PICTURES[0x7F] = "\u2421"
_TURNING = (*range(0x80, 0xA0), 0x200E, 0x200F, 0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
_PICTURES |= {code: f"[U+{code:04X}]" for code in _TURNING}


def visible(value: Any) -> Any:
    """Strings with nothing invisible in them; lists, tuples and dicts are gone through, other values kept."""
    if isinstance(value, str):
        return value.translate(_PICTURES).encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {visible(key): visible(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [visible(each) for each in value]
    return value


def shown(text: str) -> str:
    """A text of the data, made visible, and cut where it is very long."""
    rest = len(text) - LONGEST
    return visible(text if rest <= 0 else f"{text[:LONGEST]} … ({rest:,} characters more)")
