"""What all tests share: the command line in a child process, and strangers' packages, really installed."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest

# a first import of torch within an example, or a busy machine, is no failure
# (in CI the same examples every time; at a desk new ones, so that somebody finds what CI never would)
hypothesis.settings.register_profile("selfreward", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("selfreward")

ROOT = Path(__file__).parents[1]

# one thread is the fastest for tiny models; here and in every child, and before torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
for name in ("SELFREWARD_STORE", "SELFREWARD_BLOCK", "HYDRA_FULL_ERROR"):
    os.environ.pop(name, None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests stay in one worker, which makes what they share once.

    Groups that a mark names come first: they take longest, and what is in one of them never runs twice at a time.
    """
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_runtest_teardown() -> None:
    """Libraries, once imported, are out of the collector's sight: who trains collects, half a second each time."""
    global imported
    if len(sys.modules) > imported + 100:
        imported = len(sys.modules)
        gc.collect()
        gc.freeze()


imported = 0
"""Modules that were there when the collector last forgot."""


class Finished(NamedTuple):
    """A child process that has ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., Finished]:
    """``python(*arguments, path=[...], **environment)``: an interpreter in ``tmp_path``, with a store of its own.

    ``path`` lists folders that come first on the child's module search path.
    """

    def run(*arguments: str, path: tuple[Path, ...] | list[Path] = (), **environment: str) -> Finished:
        added = {"PYTHONPATH": os.pathsep.join(map(str, path)), "SELFREWARD_STORE": str(tmp_path / "store")}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=os.environ | added | environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def cli(python: Callable[..., Finished]) -> Callable[..., Finished]:
    """``cli(*arguments, path=[...], **environment)``: ``python -m selfreward ...`` in a child process."""
    return lambda *arguments, **options: python("-m", "selfreward", *arguments, **options)


@pytest.fixture
def here(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Finished]:
    """``here(*arguments)``: what ``cli`` does, in this process, which has everything imported already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFREWARD_STORE", str(tmp_path / "store"))

    def run(*arguments: str) -> Finished:
        from selfreward.core.cli import main

        return Finished(main(arguments), *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def pip_install() -> Callable[[Path, Path], None]:
    """``pip_install(what, target)``: a source tree or a wheel into a folder, offline and without dependencies."""

    def install(what: Path, target: Path) -> None:
        offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(what)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return install


@pytest.fixture(scope="session")
def stranger(
    tmp_path_factory: pytest.TempPathFactory, pip_install: Callable[[Path, Path], None]
) -> Callable[[str], Path]:
    """``stranger(name)``: the folder into which pip installed ``tests/packages/<name>``, for ``path=[...]``."""
    installed: dict[str, Path] = {}

    def install(name: str) -> Path:
        if name not in installed:
            folder = tmp_path_factory.mktemp(name)
            source = shutil.copytree(ROOT / "tests" / "packages" / name, folder / "source")  # pip builds in place
            pip_install(source, folder / "site")
            installed[name] = folder / "site"
        return installed[name]

    return install


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """``../shared/data``: real data sets beside the checkout, where there are any."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the folder shared/data beside the checkout")
    return folder
