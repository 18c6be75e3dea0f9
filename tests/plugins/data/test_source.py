"""Where rows come from: folders of save_to_disk read as files do, names on the hub, and what is told of empty files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from selfreward import UserError
from selfreward.plugins.data.source import Source
from selfreward.plugins.data.table import Table, TableConfig

ROWS = [{"prompt": "Wie spät\nist es?", "response": 'He said: "4, or; 5"'}, {"prompt": "b", "response": "\u2028 é"}]


def read(path: Path, **options: str) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    refused: list[str] = []
    return list(Source(str(path), **options).rows(refused)), refused


def test_parquet_and_saved_folders(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    dataset = Dataset.from_list(ROWS)
    dataset.to_parquet(tmp_path / "rows.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": dataset.select([0]), "test": dataset.select([1])}).save_to_disk(tmp_path / "splits")
    for name in ("rows.parquet", "saved"):
        rows, refused = read(tmp_path / name)
        assert [row for _, row in rows] == ROWS
        assert [place for place, _ in rows] == [f"{tmp_path / name}: row {k}" for k in (1, 2)]
        assert refused == []
    assert [row for _, row in read(tmp_path / "splits", split="test")[0]] == ROWS[1:]
    with pytest.raises(UserError, match=r"no split 'dev'; there are: train, test; set data\.split="):
        read(tmp_path / "splits", split="dev")
    files = Source(str(tmp_path / "splits"), split="test").files()
    assert [(f.suffix, f.parent.name, f.exists()) for f in files] == [(".arrow", "test", True)]


@pytest.mark.parametrize("name", ["rows.csv", "rows.json", "rows.jsonl", "rows.jsonl.gz"])
def test_an_empty_file_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    data = Table(TableConfig(path=str(path)))
    assert data.problems() == [f"data file {path}: it is empty"]
    with pytest.raises(UserError, match="no usable row, 0 refused"):
        data.split("ift", 0)


def test_a_hub_name_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    [problem] = Table(TableConfig(path="nobody/nothing")).problems()
    assert "data.path=nobody/nothing: no such file or folder, and the hub did not give a data set" in problem
    assert "save_to_disk" in problem
    (tmp_path / "nobody").mkdir()
    (tmp_path / "nobody" / "nothing").touch()
    assert not Source("nobody/nothing").is_on_hub
    assert not Source("missing.jsonl").is_on_hub
    assert Table(TableConfig(path="missing.jsonl")).problems() == ["data file missing.jsonl: no such file"]
