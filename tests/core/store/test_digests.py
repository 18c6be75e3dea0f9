"""A file is read once; when it changes, it is read again, whatever its times say."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selfreward.core.store import digests
from selfreward.core.store.digests import LARGE, Digests

BYTES = b"weights!" * (LARGE // 8)
OLD = (1_000_000_000_000_000_000,) * 2


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose bytes were gone through, in order."""
    done: list[str] = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, how: done.append(Path(file.name).name) or real(file, how))
    return done


@pytest.fixture
def grown_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is young."""
    monkeypatch.setattr(digests, "YOUNG", -1e9)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(BYTES)
    return path


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("grown_up")
def test_a_file_is_read_once_in_a_process_and_not_at_all_in_the_next(
    weights: Path, tmp_path: Path, reads: list[str]
) -> None:
    small = tmp_path / "config.json"
    small.write_text("{}")
    first, second, alone = Digests(tmp_path / "digests"), Digests(tmp_path / "digests"), Digests()
    for _ in range(3):
        assert [first.of(weights), first.of(small)] == [sha(weights), sha(small)]
    assert reads == ["model.safetensors", "config.json"]
    assert [second.of(weights), second.of(small)] == [sha(weights), sha(small)]
    assert reads == ["model.safetensors", "config.json", "config.json"]  # what is small is read sooner than looked up
    assert len(list((tmp_path / "digests").iterdir())) == 1
    assert alone.of(weights) == sha(weights)
    assert reads[3:] == ["model.safetensors"]


@pytest.mark.usefixtures("grown_up")
def test_another_name_of_a_file_is_the_same_file(weights: Path, tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "linked").symlink_to(weights)
    known = Digests()
    assert known.of(tmp_path / "linked") == known.of(weights)
    assert len(reads) == 1


def test_another_interpreter_takes_what_this_one_left(weights: Path, tmp_path: Path) -> None:
    program = (
        "import sys, hashlib; from pathlib import Path; from selfreward.core.store import digests\n"
        "digests.YOUNG = -1e9; digests.remember_in(Path(sys.argv[2]))\n"
        "if sys.argv[3:]: hashlib.file_digest = None\n"
        "print(digests.file_digest(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, str(weights), str(tmp_path / "digests")]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == sha(weights)
    assert subprocess.run([*command, "no reading"], capture_output=True, text=True).stdout.strip() == sha(weights)


def change_size(path: Path) -> None:
    path.write_bytes(BYTES + b"!")


def change_time(path: Path) -> None:
    path.write_bytes(BYTES.replace(b"!", b"?"))


def change_and_put_the_time_back(path: Path) -> None:
    before = path.stat()
    time.sleep(0.05)  # longer than a tick of the file system's clock
    path.write_bytes(BYTES.replace(b"!", b"?"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def replace_with_an_equal_time(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(BYTES.replace(b"!", b"?"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, path)


@pytest.mark.usefixtures("grown_up")
@pytest.mark.parametrize("change", [change_size, change_time, change_and_put_the_time_back, replace_with_an_equal_time])
def test_a_change_is_noticed_by_who_read_it_and_by_who_comes_after(
    weights: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    first = Digests(tmp_path / "digests")
    before = first.of(weights)
    time.sleep(0.05)
    change(weights)
    after = sha(weights)
    assert before != after
    assert Digests(tmp_path / "digests").of(weights) == after
    assert first.of(weights) == first.verified(weights) == after
    assert len(list((tmp_path / "digests").iterdir())) == 1  # the old entry has made room


def test_nothing_is_remembered_of_a_young_file(weights: Path, tmp_path: Path, reads: list[str]) -> None:
    os.utime(weights, ns=OLD)  # ctime still tells
    known = Digests(tmp_path / "digests")
    assert known.of(weights) == known.of(weights) == sha(weights)
    assert len(reads) == 2
    assert not (tmp_path / "digests").exists()


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "YOUNG", -1e9)
    known = Digests(tmp_path / "digests")
    real = hashlib.file_digest

    def slow(*arguments):
        done = real(*arguments)
        change_size(weights)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", slow)
        known.of(weights)
    assert known.of(weights) == sha(weights)


@pytest.mark.usefixtures("grown_up")
def test_only_ones_own_reading_verifies(weights: Path, tmp_path: Path, reads: list[str]) -> None:
    Digests(tmp_path / "digests").of(weights)
    known = Digests(tmp_path / "digests")
    known.of(weights)
    assert len(reads) == 1
    assert known.verified(weights) == known.verified(weights) == sha(weights)
    assert len(reads) == 2


@pytest.mark.usefixtures("grown_up")
@pytest.mark.parametrize("torn", [b"", b"[", b"[]", b"null", b"\xff", b'["a", 1]', b"3"])
def test_an_entry_that_is_torn_or_of_another_file_is_made_anew(weights: Path, tmp_path: Path, torn: bytes) -> None:
    Digests(tmp_path / "digests").of(weights)
    [entry] = (tmp_path / "digests").iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(torn)
    assert Digests(tmp_path / "digests").of(weights) == sha(weights)
    assert entry.read_bytes() == whole
    assert json.loads(whole)[-1] == sha(weights)


@pytest.mark.usefixtures("grown_up")
def test_a_folder_that_cannot_be_written_costs_only_time(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert Digests(tmp_path / "file" / "digests").of(weights) == sha(weights)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Digests().of(tmp_path / "nothing")
