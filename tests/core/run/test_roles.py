"""Which model plays which role, and that its weights are read once, however often it is asked for."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

import selfreward.plugins.micro
from selfreward import UserError
from selfreward.core.cli import run_config
from selfreward.core.run.roles import Roles
from selfreward.core.runner import run

M0 = Path(selfreward.plugins.micro.__file__).with_name("m0")


@pytest.fixture
def roles() -> Roles:
    """Those of a run on the micro world that has just begun."""
    entered = Roles(run_config([]).choices["model"])
    entered.enter()
    return entered


def copy_of_m0(folder: Path) -> Path:
    """The model under another path, older than what a digest may still change of."""
    shutil.copytree(M0, folder)
    for path in folder.iterdir():
        os.utime(path, (time.time() - 60,) * 2)
    return folder


def test_the_first_roles_are_all_the_base(roles):
    assert {roles[name].path for name in ("base", "M0", "policy")} == {str(M0)}
    assert [roles[name].name for name in ("base", "M0", "policy")] == ["base", "M0", "M0"]
    assert roles.policies() == ["M0"]


def test_a_folder_plays_a_role_of_its_own_and_nobody_else_does(roles, tmp_path):
    copy = copy_of_m0(tmp_path / "copy")
    assert str(copy) in roles
    assert roles[str(copy)].key == roles["base"].key  # the same content, wherever it lies
    assert "M7" not in roles
    with pytest.raises(UserError, match=r"no model plays the role 'M7'.*base.*or the path of a model folder"):
        roles["M7"]


def test_a_dry_run_with_foreign_models_reads_all_weights_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    judge, reference = copy_of_m0(tmp_path / "judge"), copy_of_m0(tmp_path / "reference")
    time.sleep(2.1)  # a file that was made just now is read again, for it may still change unnoticed
    passes = Counter[str]()
    digest = hashlib.file_digest

    def counted(handle, name):
        passes[handle.name] += 1
        return digest(handle, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    run(run_config([f"judge.model={judge}", f"optimizer.reference={reference}", "dry_run=true"]))
    weights = {name: count for name, count in passes.items() if name.endswith(".safetensors")}
    assert {str(folder / "model.safetensors") for folder in (judge, reference)} <= weights.keys()
    assert set(passes.values()) == {1}
