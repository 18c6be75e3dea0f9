"""Rows of JSON: one object a line (JSON Lines), or one list of objects. A bad one is refused by its line.

Nothing but the standard library is imported here, so that the core may read its files by it, too.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]
"""Rows, each with its place: ``answers.jsonl:3``."""

_BOM = b"\xef\xbb\xbf"
_GAP = re.compile(r"[\s,]*")
_HALF = re.compile(r"[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def rows(name: str, file: BinaryIO, refused: list[str]) -> Rows:
    """The objects of a file: of its one list or, where it is none, of its lines; empty lines are passed over.

    Args:
        name: the file, for messages.
        file: its bytes, in UTF-8; it is read twice at the beginning, so it can be wound back.
        refused: gets a ``place: why`` for everything that is not a JSON object.
    """
    is_list = _is_list(file)
    file.seek(0)
    if is_list:
        data = file.read().removeprefix(_BOM)
        yield from _listed(name, data.decode("utf-8", "surrogateescape"), refused)
    else:
        yield from _lines(name, file, refused)


def _is_list(file: BinaryIO) -> bool:
    """Whether it begins with a bracket, and not with a line that is whole by itself while others follow."""
    first = next((line for line in file if line.removeprefix(_BOM).strip()), b"").removeprefix(_BOM)
    if not first.lstrip().startswith(b"["):
        return False
    try:
        json.loads(first)
    except RecursionError:
        pass
    except ValueError:
        return True
    return not any(line.strip() for line in file)


def _lines(name: str, file: Iterable[bytes], refused: list[str]) -> Rows:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            found = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            if b"\\u" in line:
                _refuse_halves(found)
        except (ValueError, RecursionError) as problem:  # bad JSON, bad UTF-8, or nested too deeply
            refused.append(f"{place}: not usable as JSON: {problem}")
            continue
        yield from _object(place, found, refused)


def _listed(name: str, data: str, refused: list[str]) -> Rows:
    """One element after the other, so that each has a line and a broken end does not cost the beginning."""
    decoder, has_halves = json.JSONDecoder(), _HALF.search(data) or _ESCAPED_HALF.search(data)
    at = data.index("[") + 1
    line, before = 1 + data.count("\n", 0, at), 0
    for item in itertools.count(1):
        begin = _GAP.match(data, at).end()  # type: ignore[union-attr]
        line += data.count("\n", at, begin)
        place = f"{name}:{line}" if line > before else f"{name}:{line}, item {item}"
        before = line
        if data.startswith("]", begin):
            if data[begin + 1 :].strip():
                refused.append(f"{place}: the list ends here, and what follows is not read")
            return
        try:
            found, at = decoder.raw_decode(data, begin)
        except (ValueError, RecursionError) as problem:
            refused.append(f"{place}: not usable as JSON, nothing is read from here on: {problem}")
            return
        line += data.count("\n", begin, at)
        try:
            if has_halves:
                _refuse_halves(found)
        except ValueError as problem:
            refused.append(f"{place}: not usable as JSON: {problem}")
            continue
        yield from _object(place, found, refused)


def _object(place: str, found: Any, refused: list[str]) -> Rows:
    if isinstance(found, dict):
        yield place, found
    else:
        refused.append(f"{place}: a JSON object is wanted, got {type(found).__name__}")


def _refuse_halves(found: Any) -> None:
    """JSON can spell half a character, which no file or tokenizer can take."""
    if half := _HALF.search(json.dumps(found, ensure_ascii=False)):
        raise ValueError(described(half[0]))


def described(half: str) -> str:
    """What a lone surrogate stands for: a byte that is not UTF-8 (so Python escapes it), or half a character."""
    code = ord(half)
    if 0xDC80 <= code <= 0xDCFF:
        return f"byte 0x{code - 0xDC00:02x} is not UTF-8; save the file as UTF-8"
    return f"half a character, \\u{code:04x}"
