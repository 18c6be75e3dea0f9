"""The wheel holds everything: configs, rubrics and M0 are found where no checkout is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from selfreward.core.cli import run_config

ROOT = Path(__file__).parents[2]
SOURCES = ("selfreward", "conf", "pyproject.toml", "README.md", "LICENSE")
M0 = Path("selfreward/plugins/micro/m0")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree, built from a copy: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, copy = ROOT / name, folder / "tree" / name
        copy.parent.mkdir(exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source, copy, ignore=ignored) if source.is_dir() else shutil.copy(source, copy)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *offline, "-w", str(folder), str(folder / "tree")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel, pip_install):
    """A folder with the wheel installed."""
    pip_install(wheel, wheel.parent / "site")
    return wheel.parent / "site"


def test_the_wheel_holds_what_the_tree_holds(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    configs = [path for path in (ROOT / "conf").rglob("*") if path.suffix in (".yaml", ".py")]
    wanted = {f"selfreward/conf/{path.relative_to(ROOT / 'conf')}" for path in configs}
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "selfreward").rglob("*.py")}
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / M0).iterdir() if path.is_file()}
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "selfreward/core/report").iterdir() if path.is_file()}
    assert packed == wanted


def test_the_command_line_works_outside_the_checkout(cli, site, tmp_path):
    listed = cli("plugins", path=[site])
    assert (listed.code, listed.err) == (0, "")
    for line in ("best_worst           selfreward 0.", "micro                selfreward 0."):
        assert line in listed.out
    assert "provided twice" not in listed.out
    composed = cli("experiment=micro_fast", "selector=demonstrations", "--cfg", "job", path=[site])
    assert (composed.code, composed.err) == (0, "")
    assert yaml.safe_load(composed.out)["sampler"] == run_config([]).composed["sampler"]
    assert not list(tmp_path.iterdir())


WHERE = """
import importlib.metadata, selfreward, selfreward.conf
from selfreward import Rubric
from selfreward.core.cli import run_config
from selfreward.core.run.roles import base_model
print(selfreward.__file__)
print(selfreward.conf.__file__)
print(importlib.metadata.version("selfreward") == selfreward.__version__)
print(base_model(run_config([]).choices["model"]).path, Rubric.load("micro").name)
"""


def test_nothing_of_the_checkout_is_used(python, site):
    done = python("-c", WHERE, path=[site])
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        str(site / "selfreward" / "__init__.py"),
        str(site / "selfreward" / "conf" / "__init__.py"),
        "True",
        f"{site / M0} micro",
    ]


def test_the_installed_command_is_the_same(site, python):
    script = site / "bin" / "selfreward"
    done = python(str(script), "sampler.n=0", path=[site])
    assert (done.code, done.err) == (2, "selfreward: sampler.n=0 is out of range: it must be at least 1\n")
