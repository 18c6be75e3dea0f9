"""Files of rows: every format reads the same, and what cannot be read is told by file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from selfreward import UserError
from selfreward.formats import files
from selfreward.formats.cells import text_of

ROWS = [{"prompt": "Wie spät\nist es?", "response": 'He said: "4, or; 5"'}, {"prompt": "b", "response": "\u2028 é"}]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def separated(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


TEXTS = {
    "rows.jsonl": jsonl(ROWS),
    "rows.ndjson": b"\xef\xbb\xbf" + jsonl(ROWS),
    "rows.json": json.dumps(ROWS, indent=2).encode(),
    "lines.json": jsonl(ROWS),
    "rows.csv": separated(ROWS, ","),
    "semicolons.csv": b"\xef\xbb\xbf" + separated(ROWS, ";"),
    "rows.tsv": separated(ROWS, "\t"),
}


def read(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    refused: list[str] = []
    return list(files.rows(path, refused)), refused


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_text_format_reads_the_same(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(TEXTS[name]) if packed else TEXTS[name])
    rows, refused = read(path)
    assert [row for _, row in rows] == ROWS
    assert refused == []


def test_places_are_the_lines_on_which_rows_begin(tmp_path: Path) -> None:
    places = {}
    for name, content in TEXTS.items():
        (tmp_path / name).write_bytes(content)
        places[name] = [int(place.rpartition(":")[2]) for place, _ in read(tmp_path / name)[0]]
    assert places["rows.jsonl"] == places["lines.json"] == [1, 2]
    assert places["rows.json"] == [2, 6]
    assert places["rows.csv"] == places["semicolons.csv"] == places["rows.tsv"] == [2, 4]


def test_parquet_with_bytes_that_are_no_text_costs_only_their_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    offsets, data = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffc")
    column = pa.StringArray.from_buffers(3, offsets, data)
    pq.write_table(pa.table({"prompt": column}), tmp_path / "rows.parquet")
    rows, [refused] = read(tmp_path / "rows.parquet")
    assert [row["prompt"] for _, row in rows] == ["a", "c"]
    assert "rows.parquet: row 2: not usable as text: " in refused
    assert "0xff" in refused


BROKEN = {
    "byte.jsonl": (b'{"prompt": "a"}\n{"prompt": "caf\xe9"}\n{"prompt": "c"}\n', 2, "0xe9"),
    "byte.json": (b'[{"prompt": "a"},\n{"prompt": "caf\xe9"},\n{"prompt": "c"}]', 2, "byte 0xe9 is not UTF-8"),
    "byte.csv": (b"prompt,x\na,\ncaf\xe9,\nc,\n", 3, "byte 0xe9 is not UTF-8; save the file as UTF-8"),
    "half.json": (b'[{"prompt": "a"},\n{"prompt": "\\ud83d"},\n{"prompt": "c"}]', 2, "half a character, \\ud83d"),
    "type.json": (b'[{"prompt": "a"},\n7,\n{"prompt": "c"}]', 2, "a JSON object is wanted, got int"),
    "cells.csv": (b"prompt,x\na,\nb\nc,\n", 3, "1 cells, and the header has 2 columns"),
    "quote.csv": (b'prompt,x\na,\n"b"b,\nc,\n', 3, "not usable as CSV"),
    "deep.jsonl": (b'{"prompt": "a"}\n' + b"[" * 200_000 + b'\n{"prompt": "c"}\n', 2, "recursion"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_row_that_cannot_be_read_does_not_cost_the_others(tmp_path: Path, name: str) -> None:
    content, line, why = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    rows, refused = read(path)
    assert [row["prompt"] for _, row in rows] == ["a", "c"]
    assert len(refused) == 1
    assert refused[0].startswith(f"{path}:{line}: ")
    assert why in refused[0]


def test_a_whole_character_may_be_escaped(tmp_path: Path) -> None:
    for name, content in {
        "a.jsonl": b'{"prompt": "\\ud83d\\ude00"}',
        "a.json": b'[{"prompt": "\\ud83d\\ude00"}]',
    }.items():
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name)[0][0][1] == {"prompt": "😀"}


def test_a_list_that_breaks_off_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"prompt": "a"},\n {"prompt": "b"')
    rows, [refused] = read(path)
    assert len(rows) == 1
    assert refused.startswith(f"{path}:2: not usable as JSON, nothing is read from here on")


PACKED = gzip.compress(jsonl(ROWS * 200))
UNREADABLE = {
    "plain.jsonl.gz": (b"plain text", "not readable"),
    "torn.jsonl.gz": (PACKED[:-20], "not readable"),
    "broken.csv.gz": (PACKED[:40] + b"\0" * 40 + PACKED[80:], "not readable"),
    "rows.parquet": (b"PAR1 no PAR1", "not readable"),
    "utf16.csv": ("prompt,response\na,b\n".encode("utf-16"), r"utf16\.csv:1: byte 0xff .* UTF-16; save it as UTF-8"),
    "rows.xlsx": (b"PK", "its ending does not say what it holds; known are .jsonl"),
    "twice.csv": (b"a,a\n1,2\n", "has the column 'a' twice"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    content, why = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=why) as error:
        read(tmp_path / name)
    assert name in str(error.value)


LISTS = {
    "[1]\n{}\n": ([2], ["1: a JSON object is wanted, got list"]),  # lines, one of which is a list
    '[{}, 7, {"a": 1}]\n': (["1", "1, item 3"], ["1, item 2: a JSON object is wanted, got int"]),
    "\n\n[{},\n{}]\n": ([3, 4], []),
    "[{},\n{}]\n{}": ([1, 2], ["2, item 3: the list ends here, and what follows is not read"]),
}


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
@pytest.mark.parametrize("content", LISTS)
def test_a_list_is_known_by_its_beginning_and_nothing_is_dropped_silently(
    tmp_path: Path, name: str, content: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    places, reasons = LISTS[content]
    rows, refused = read(path)
    assert [place for place, _ in rows] == [f"{path}:{place}" for place in places]
    assert refused == [f"{path}:{reason}" for reason in reasons]


def test_usable_rows_and_the_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl([{"n": 1}, {"n": "x"}, {"m": 1}, {"n": "y"}]))
    found, refused = files.read(path, lambda row: text_of(row, "n"))
    assert found == ["x", "y"]
    assert refused == [f"{path}:1: 'n' must be text, got int", f"{path}:3: 'n' is missing"]
    with pytest.raises(UserError, match=r"(?s)no usable row, 4 refused, such as.*rows.jsonl:1: 'k' is missing"):
        files.read(path, lambda row: text_of(row, "k"))
