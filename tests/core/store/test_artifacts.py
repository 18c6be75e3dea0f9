"""The store: nothing half-written is ever taken for whole, and who comes after a kill ends with the same bytes.

Kills are real. This file is also a program: it forks workers that die by SIGKILL before their n-th change of the file
system, for every n, or by the kernel's hand in the middle of a file when it grows past a size (SIGXFSZ).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from selfreward.core.contracts.records import Candidate, Prompt
from selfreward.core.errors import StageError
from selfreward.core.store import artifacts, digests
from selfreward.core.store.artifacts import FORMAT, Artifact, Key, Store
from selfreward.core.store.why_new import why_new

PARTS = {"seed": 0, "plugin": "x" * 20_000}  # makes the manifest the largest file: a size can kill while it is written
TABLE = Key("prompts", PARTS)
FOLDER = Key("model", PARTS)
SHARDS = [[Prompt.of(f"Prompt {i}.{j}: " + "word " * j, "M1") for j in range(8 + i)] for i in range(3)]
WEIGHTS = bytes(range(256)) * 20


def make_table(store: Store) -> Artifact:
    """What a stage does: lock, look, go on from the last whole shard, finish."""
    artifact = store.artifact(TABLE)
    with store.lock(artifact):
        if not artifact.is_finished():
            for index in range(len(artifact.shards), len(SHARDS)):
                artifact.write_shard(Prompt, SHARDS[index], {"tokens": 10 + index}, {"too short": [f"Prompt {index}"]})
            artifact.finish()
    return artifact


def make_folder(store: Store) -> Artifact:
    """What training does: a checkpoint of two files, and one file of state for who comes after."""

    def fill(out: Path, work: Path) -> dict[str, float]:
        assert list(out.iterdir()) == []
        (work / "state").write_text("step 1")
        (out / "model.safetensors").write_bytes(WEIGHTS)
        (out / "tokenizer").mkdir()
        (out / "tokenizer" / "vocab.json").write_text('{"a": 0}')
        return {"loss": 0.5}

    artifact = store.artifact(FOLDER)
    with store.lock(artifact):
        if not artifact.is_finished():
            artifact.write_folder(fill)
    return artifact


MAKE: dict[str, Callable[[Store], Artifact]] = {"table": make_table, "folder": make_folder}


# ------------------------------------------------------------------------------------------------ the program that dies


def work_until_killed(what: str, root: Path, event: int = 0, size: int = 0) -> int:
    """Do the work in a child that dies at an event or a file size; returns its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if size:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it; the kernel's default is to kill
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    left = event

    def die(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if name == "open":
            touches = isinstance(arguments[0], str | os.PathLike) and str(arguments[0]).startswith(str(root))
        else:
            touches = name in ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
        left -= touches
        if touches and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    MAKE[what](Store(root))
    os._exit(0)


def main(what: str, root: Path) -> None:
    """Kill a worker at every event and at growing file sizes, each in a store of its own; print how each one ended."""
    Prompt.table(SHARDS[0])  # what is imported here is not imported in every worker
    if what == "contend":
        print("ready", flush=True)
        make_slowly(root)
    elif what == "hold":
        with Store(root).lock(Store(root).artifact(TABLE)):
            print("ready", flush=True)
            time.sleep(60)
    else:
        ends: dict[str, int] = {}
        for limit in ({"event": 1}, {"size": 1}):
            end = 1
            while end:  # until a worker lives to finish
                [(kind, number)] = limit.items()
                end = ends[f"{kind}-{number}"] = work_until_killed(what, root / f"{kind}-{number}", **limit)
                limit = {kind: number + 1 if kind == "event" else number * 2}
        print(json.dumps(ends))


def make_slowly(root: Path) -> None:
    """Make the table and leave one line in a log for the work that was really done."""
    store = Store(root)
    artifact = store.artifact(TABLE)
    with store.lock(artifact):
        if not artifact.is_finished():
            with (root / "work.log").open("a") as log:
                log.write(f"{os.getpid()}\n")
            time.sleep(0.3)
            for rows in SHARDS:
                artifact.write_shard(Prompt, rows, {})
            artifact.finish()


def start(what: str, root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, what, str(root)], stdout=subprocess.PIPE, text=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------------------------------------------------- tests


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def unfinished(store: Store, shards: int = len(SHARDS)) -> Artifact:
    artifact = store.artifact(TABLE)
    for index in range(shards):
        artifact.write_shard(Prompt, SHARDS[index], {"tokens": 10 + index}, {"too short": [f"Prompt {index}"]})
    return artifact


def test_equal_parts_are_the_same_key_and_nothing_else_is() -> None:
    key = Key("prompts", {"seed": 0, "plugin": {"name": "a", "n": 4}})
    assert key.hash == Key("prompts", {"plugin": {"n": 4, "name": "a"}, "seed": 0}).hash
    assert len(key.hash) == 20
    others = [Key("candidates", key.parts), Key("prompts", {**key.parts, "seed": 1}), Key("prompts", {"seed": 0})]
    assert len({key.hash, *(other.hash for other in others)}) == 4


def test_shards_come_back_in_order(store: Store) -> None:
    artifact = unfinished(store, 0)
    for index, rows in enumerate(SHARDS):
        assert len(artifact) == sum(map(len, SHARDS[:index]))
        examples = {"too short": [f"Fox {index}"], f"{index}": ["Lamp"]}
        artifact.write_shard(Prompt, rows, {"tokens": 10 + index}, examples)
        assert not store.artifact(TABLE).is_finished()
    assert store.artifact(TABLE).figures == {}
    artifact.finish(execution={"engine": "transformers"})
    for again in (artifact, store.artifact(TABLE)):
        assert again.is_finished()
        assert [shard.file for shard in again.shards] == ["00000.parquet", "00001.parquet", "00002.parquet"]
        assert list(again.rows(Prompt)) == [row for rows in SHARDS for row in rows]
        assert list(again.rows(Prompt, 1)) == SHARDS[1]
        assert len(again) == 27
        assert again.figures == {"tokens": 33, "rows": 27}
        assert again.shards[2].figures == {"tokens": 12}
        assert again.examples == {"too short": ["Fox 0", "Fox 1", "Fox 2"], "0": ["Lamp"], "1": ["Lamp"], "2": ["Lamp"]}
    manifest = json.loads((artifact.folder / "manifest.json").read_text())
    assert (manifest["format"], manifest["stage"], manifest["key"]) == (FORMAT, "prompts", TABLE.hash)
    assert (manifest["parts"], manifest["execution"]) == (PARTS, {"engine": "transformers"})
    assert sorted(content(artifact.folder)) == ["00000.parquet", "00001.parquet", "00002.parquet", "manifest.json"]


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    assert content(make_table(Store(tmp_path / "a")).folder) == content(make_table(Store(tmp_path / "b")).folder)


def test_a_table_may_be_empty(store: Store) -> None:
    nothing = store.artifact(Key("answers", {}))
    nothing.finish()
    assert store.artifact(nothing.key).is_finished()
    assert (len(nothing), list(nothing.rows(Candidate)), nothing.figures) == (0, [], {"rows": 0})
    hollow = store.artifact(Key("candidates", {}))
    hollow.write_shard(Candidate, [], {})
    hollow.finish()
    assert list(store.artifact(hollow.key).rows(Candidate)) == []


def test_a_folder_named_like_a_choice_adds_no_column(tmp_path: Path) -> None:
    artifact = make_table(Store(tmp_path / "seed=1" / "judge=llm_cot,seed=2"))
    assert list(artifact.rows(Prompt, 0)) == SHARDS[0]


# ----------------------------------------------------------------------------------------------- a journal that is torn


def test_a_journal_torn_at_any_byte_keeps_just_the_whole_shards(store: Store, tmp_path: Path) -> None:
    reference = content(make_table(Store(tmp_path / "reference")).folder)
    journal = unfinished(store).folder / "journal.jsonl"
    text = journal.read_bytes()
    ends = [0, *(place + 1 for place, byte in enumerate(text) if byte == ord("\n"))]
    assert len(ends) == 4
    for cut in range(len(text) + 1):
        journal.write_bytes(text[:cut])
        whole = sum(end <= cut for end in ends[1:])
        artifact = store.artifact(TABLE)
        assert len(artifact.shards) == whole, f"cut at {cut}"
        assert journal.read_bytes() == text[: ends[whole]], f"cut at {cut}"
        if any(abs(cut - end) < 3 for end in ends) or cut % 101 == 0:
            assert content(make_table(store).folder) == reference, f"cut at {cut}"
            (artifact.folder / "manifest.json").unlink()


def test_writing_goes_on_after_every_tear(store: Store) -> None:
    """Two kills in a row: the entry after a torn one must not share its line."""
    artifact = unfinished(store, 1)
    journal = artifact.folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-1])
    again = store.artifact(TABLE)
    for rows in SHARDS[len(again.shards) : 2]:
        again.write_shard(Prompt, rows, {"tokens": 1})
    assert [shard.rows for shard in store.artifact(TABLE).shards] == [8, 9]


@pytest.mark.parametrize(
    "tail", [b"\0" * 40, b"\xff\xfe\n", b"{}\n", b"[1]\n", b"null\n", b'{"file": "00001.parquet"}\n', b"\n"]
)
def test_what_a_crash_may_leave_in_a_journal_is_cut_off(store: Store, tail: bytes) -> None:
    journal = unfinished(store, 1).folder / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + tail)
    assert [shard.rows for shard in store.artifact(TABLE).shards] == [8]
    assert journal.read_bytes() == whole


@pytest.mark.parametrize("harm", ["missing", "cut", "flipped", "empty"])
def test_work_goes_on_from_the_first_shard_that_is_not_whole(store: Store, tmp_path: Path, harm: str) -> None:
    reference = content(make_table(Store(tmp_path / "reference")).folder)
    shard = unfinished(store).folder / "00001.parquet"
    data = shard.read_bytes()
    shard.write_bytes({"cut": data[:-1], "flipped": flipped(data, len(data) // 2)}.get(harm, b""))
    if harm == "missing":
        shard.unlink()
    assert [part.file for part in store.artifact(TABLE).shards] == ["00000.parquet"]
    assert content(make_table(store).folder) == reference


# ---------------------------------------------------------------------------------------------- an artifact that is bad


def flipped(data: bytes, place: int, bit: int = 0) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def refusal(store: Store, key: Key = TABLE) -> str:
    with pytest.raises(StageError) as caught:
        store.artifact(key).is_finished()
    return str(caught.value)


def test_a_flipped_bit_in_any_place_is_refused_by_name(store: Store) -> None:
    folder = make_table(store).folder
    for name in ("00000.parquet", "00002.parquet"):
        shard = folder / name
        data = shard.read_bytes()
        for place in (*range(0, len(data), 97), len(data) - 1):
            shard.write_bytes(flipped(data, place, place % 8))
            assert f"{shard} is damaged" in refusal(store), place
        shard.write_bytes(data)
    assert store.artifact(TABLE).is_finished()


def test_a_missing_file_is_refused_by_name(store: Store) -> None:
    folder, checkpoint = make_table(store).folder, make_folder(store).folder
    (folder / "00001.parquet").unlink()
    assert refusal(store) == (
        f"{folder / '00001.parquet'} is missing (its checksum is in manifest.json); delete {folder} and run again"
    )
    (checkpoint / "tokenizer" / "vocab.json").unlink()
    assert "vocab.json is missing" in refusal(store, FOLDER)


def test_a_newer_format_is_refused_whatever_it_holds(store: Store) -> None:
    manifest = make_table(store).folder / "manifest.json"
    manifest.write_text(json.dumps({"format": FORMAT + 1, "shards": 3}))
    assert f"{manifest} has format {FORMAT + 1}" in refusal(store)
    assert "upgrade selfreward" in refusal(store)


def test_an_older_format_is_counted_and_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "FORMAT", FORMAT - 1)
    old = [make_table(store).folder, make_folder(store).folder]
    nested = store.artifact(Key("prompts", {"plugin": {"format": 1}, "format": 1, "text": '\n "format": 1'}))
    unfinished(store, 1)
    before = content(store.path)
    monkeypatch.undo()
    assert store.older() == 2
    assert store.older(most=1) == 1
    for key in (TABLE, FOLDER):
        assert not store.artifact(key).is_finished()
    assert why_new(store, store.artifact(Key("prompts", {"seed": 1}))) == ""
    new = make_table(store)
    assert new.folder not in old
    store.artifact(nested.key).finish()
    assert store.older() == 2
    assert "seed 1, was 0" in why_new(store, store.artifact(Key("prompts", {**PARTS, "seed": 1})))
    assert content(store.path).items() >= before.items()
    assert [list(Artifact(old[0], TABLE).rows(Prompt, i)) for i in range(3)] == SHARDS  # a run's folder still shows it


def test_an_empty_or_damaged_store_has_nothing_older(store: Store) -> None:
    assert store.older() == 0
    (make_table(store).folder / "manifest.json").write_bytes(b"\xff")
    assert store.older() == 0


def test_a_file_is_read_once_to_verify_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [path for path in make_folder(store).folder.rglob("*") if path.name != "manifest.json" and path.is_file()]
    monkeypatch.setattr(digests, "YOUNG", -1e9)
    read: list[str] = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, how: read.append(file.name) or real(file, how))
    for _ in range(3):
        assert store.artifact(FOLDER).is_finished()
    assert sorted(read) == sorted(map(str, files))


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b"null", b"\xff", b'{"format": 2}', b'{"format": "x"}', b'{"format": null}',
     b'{"format": 2, "files": [{}], "figures": {}}', b'{"format": 2, "files": 3, "figures": {}}',
     b'{"format": 2, "files": [], "figures": 1}'],
)  # fmt: skip
def test_a_damaged_manifest_is_refused_by_name(store: Store, text: bytes) -> None:
    manifest = make_table(store).folder / "manifest.json"
    manifest.write_bytes(text)
    assert f"{manifest} is damaged; delete the folder {manifest.parent}" in refusal(store)


def test_a_manifest_cut_anywhere_is_refused(store: Store) -> None:
    manifest = make_table(store).folder / "manifest.json"
    text = manifest.read_bytes()
    for cut in range(0, len(text.rstrip()), 199):
        manifest.write_bytes(text[:cut])
        assert "manifest.json is damaged" in refusal(store), cut


# ---------------------------------------------------------------------------------------------------------------- kills


@pytest.fixture(scope="module", params=list(MAKE))
def killed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, dict[str, int]]:
    root = tmp_path_factory.mktemp(request.param)
    program = start(request.param, root)
    said, _ = program.communicate(timeout=60)
    assert program.returncode == 0
    return request.param, root, json.loads(said)


def scenes(killed: tuple[str, Path, dict[str, int]]) -> Iterator[tuple[str, Store]]:
    _, root, ends = killed
    return ((name, Store(root / name)) for name in ends)


def test_workers_died_in_many_places(killed: tuple[str, Path, dict[str, int]]) -> None:
    ends = killed[2]
    *events, last = [end for name, end in ends.items() if name.startswith("event")]
    *sizes, largest = [end for name, end in ends.items() if name.startswith("size")]
    assert (set(events), last) == ({-signal.SIGKILL}, 0)
    assert (set(sizes), largest) == ({-signal.SIGXFSZ}, 0)
    assert len(events) > 20
    assert len(sizes) > 8


def test_a_kill_leaves_nothing_half_written_taken_for_whole_and_the_next_one_completes_it(
    killed: tuple[str, Path, dict[str, int]], tmp_path: Path
) -> None:
    what = killed[0]
    reference = content(MAKE[what](Store(tmp_path)).folder)
    kept = set()
    for name, store in scenes(killed):
        left = store.artifact(TABLE if what == "table" else FOLDER)
        finished = left.is_finished()  # raises where a manifest vouches for what is not there
        if what == "table":
            for shard in left.folder.glob("[0-9]*.parquet"):
                assert shard.read_bytes() == reference[shard.name], name
            assert [list(left.rows(Prompt, i)) for i in range(len(left.shards))] == SHARDS[: len(left.shards)], name
            assert len(left.shards) == len(SHARDS) or not finished, name
        elif left.folder.exists():
            assert content(left.folder).items() >= {k: reference[k] for k in reference if k != "manifest.json"}.items()
        kept.add((len(left.shards), finished))
        done = MAKE[what](store)
        assert done.is_finished(), name
        made = content(done.folder)
        assert {k: v for k, v in made.items() if k != "journal.jsonl"} == reference, name
    assert {finished for _, finished in kept} == {False, True}
    if what == "table":
        assert {shards for shards, _ in kept} == {0, 1, 2, 3}


# ---------------------------------------------------------------------------------------------------------------- locks


def lock_is_free(store: Store) -> bool:
    with (store.path / "locks" / f"prompts-{TABLE.hash}").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def ready(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"


def test_of_several_processes_one_does_the_work(store: Store) -> None:
    with store.lock(store.artifact(TABLE)):
        programs = [start("contend", store.path) for _ in range(3)]
        for program in programs:
            ready(program)
        time.sleep(0.2)
        assert not (store.path / "work.log").exists()
        assert all(program.poll() is None for program in programs)
    assert [program.wait(timeout=30) for program in programs] == [0, 0, 0]
    [worker] = (store.path / "work.log").read_text().split()
    assert int(worker) in {program.pid for program in programs}
    assert list(store.artifact(TABLE).rows(Prompt)) == [row for rows in SHARDS for row in rows]
    for program in programs:
        program.communicate()


def test_a_dead_holders_lock_is_free(store: Store) -> None:
    holder = start("hold", store.path)
    try:
        ready(holder)
        assert not lock_is_free(store)
    finally:
        holder.kill()
        holder.communicate()
    assert lock_is_free(store)
    assert make_table(store).is_finished()


def test_locks_of_other_artifacts_are_their_own(store: Store) -> None:
    with store.lock(store.artifact(FOLDER)):
        assert make_table(store).is_finished()
    assert lock_is_free(store)


def test_a_lock_ends_with_an_error(store: Store) -> None:
    with pytest.raises(RuntimeError), store.lock(store.artifact(TABLE)):
        raise RuntimeError
    assert lock_is_free(store)


# ---------------------------------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_appears_whole_under_its_name(store: Store) -> None:
    artifact = make_folder(store)
    assert artifact.is_finished()
    assert sorted(content(artifact.folder)) == ["manifest.json", "model.safetensors", "tokenizer/vocab.json"]
    assert (artifact.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert artifact.figures == {"loss": 0.5}
    assert [path.name for path in artifact.folder.parent.iterdir()] == [artifact.folder.name]


def test_a_checkpoint_that_failed_is_not_there_and_its_state_is_kept(store: Store) -> None:
    artifact = store.artifact(FOLDER)

    def fails(out: Path, work: Path) -> dict[str, float]:
        (out / "half").write_text("x")
        (work / "state").write_text("step 7")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        artifact.write_folder(fails)
    assert not artifact.folder.exists()
    assert not artifact.is_finished()

    def resumes(out: Path, work: Path) -> dict[str, float]:
        assert list(out.iterdir()) == []
        (out / "model").write_text((work / "state").read_text())
        return {}

    artifact.write_folder(resumes)
    assert (artifact.folder / "model").read_text() == "step 7"
    assert store.artifact(FOLDER).is_finished()


def test_a_folder_without_a_manifest_is_replaced(store: Store) -> None:
    folder = store.artifact(FOLDER).folder
    folder.mkdir(parents=True)
    (folder / "stale").write_text("x")
    make_folder(store)
    assert not (folder / "stale").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer/vocab.json"])
def test_a_flipped_bit_in_a_checkpoint_is_refused_by_name(store: Store, name: str) -> None:
    path = make_folder(store).folder / name
    path.write_bytes(flipped(path.read_bytes(), 3))
    assert f"{path} is damaged" in refusal(store, FOLDER)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
