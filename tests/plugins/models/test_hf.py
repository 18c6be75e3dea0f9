"""The hf model: where the checkpoint is, and what is said before any work when it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfreward.core.contracts.options import cross_problems, option_docs
from selfreward.plugins.models.hf import HuggingFace, HuggingFaceConfig


def problems(path: str) -> list[str]:
    return list(cross_problems(HuggingFaceConfig(path=path), "model"))


@pytest.mark.parametrize("path", ["", "  "])
def test_a_path_is_required(path: str) -> None:
    [problem] = problems(path)
    assert problem.startswith("model: path is not set")
    assert "model.path=" in problem


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "runs/a/5-model"])
def test_what_can_only_be_a_folder_must_exist(path: str) -> None:
    assert problems(path) == [f"model: path={path}: no such folder"]


def test_hub_names_pass() -> None:
    assert problems("org/name") == []
    assert problems("gpt2") == []
    assert HuggingFace(HuggingFaceConfig(path="org/name")).path() == "org/name"


def test_a_folder_must_be_a_checkpoints(tmp_path: Path) -> None:
    assert "config.json" in problems(str(tmp_path))[0]
    (tmp_path / "config.json").write_text("{}")
    assert problems(str(tmp_path)) == []


def test_the_home_folder_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    assert problems("~/m") == []
    assert HuggingFace(HuggingFaceConfig(path="~/m")).path() == str(tmp_path / "m")


def test_every_option_is_documented() -> None:
    assert {"path", "dtype", "rubric", "lora"} <= option_docs(HuggingFaceConfig).keys()
