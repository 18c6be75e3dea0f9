"""A table that a thread writes, read while it grows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from selfreward.core.contracts.records import Prompt
from selfreward.core.errors import StageError
from selfreward.core.store.artifacts import Artifact, Key, Store
from selfreward.core.store.aside import Aside
from selfreward.core.store.tables import shards_of


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Store(tmp_path).artifact(Key("prompts", {"n": 1}))


def write(artifact: Artifact, number: int) -> None:
    artifact.write_shard(Prompt, [Prompt.of(f"prompt {number}", "ift")], {})


def texts(artifact: Artifact) -> list[str]:
    return [row.text for shard in shards_of(artifact, Prompt) for row in shard]


def test_a_shard_is_read_before_the_next_one_is_written(artifact: Artifact) -> None:
    read = threading.Semaphore(0)

    def work() -> None:
        for number in range(3):
            write(artifact, number)
            assert read.acquire(timeout=20)  # nobody would release it if the reader waited for the whole
        artifact.finish()

    told: list[int] = []
    Aside(artifact, work, lambda: told.append(len(artifact)))
    seen = []
    for [row] in shards_of(artifact, Prompt):
        seen.append(row.text)
        assert not told
        read.release()
    assert seen == ["prompt 0", "prompt 1", "prompt 2"]
    assert told == [3]
    assert texts(artifact) == seen  # an ordinary table from here on


@pytest.mark.parametrize("shards", [0, 2])
def test_what_ends_the_thread_reaches_the_reader(artifact: Artifact, shards: int) -> None:
    def work() -> None:
        for number in range(shards):
            write(artifact, number)
        raise StageError("the sampler failed at prompt 7")

    told: list[int] = []
    Aside(artifact, work, lambda: told.append(1))
    with pytest.raises(StageError, match="prompt 7"):
        texts(artifact)
    assert not told


def test_a_table_that_was_complete_already_is_read_whole(tmp_path: Path) -> None:
    first = Store(tmp_path).artifact(Key("prompts", {"n": 1}))
    write(first, 0)
    write(first, 1)
    first.finish()
    again = Store(tmp_path).artifact(Key("prompts", {"n": 1}))
    told: list[int] = []
    aside = Aside(again, lambda: None, lambda: told.append(1))
    assert texts(again) == ["prompt 0", "prompt 1"]
    aside.join()  # twice is fine
    assert told == [1]


def test_judging_begins_while_answers_are_still_written(cli: Callable, tmp_path: Path) -> None:
    sizes = ["data.ift=64", "recipe.eft.source=none", "iterations=1", "prompt_generator.n=32", "shard_size=4"]
    done = cli("experiment=micro_fast", "evaluators=[]", "monitors=[]", "run_dir=run", *sizes)
    assert done.code == 0, done.err
    written = {
        stage: sorted(p.stat().st_mtime for p in (tmp_path / "run" / "iter-01" / folder).glob("*.parquet"))
        for stage, folder in (("candidates", "2-candidates"), ("judgements", "3-judgements"))
    }
    assert len(written["candidates"]) == len(written["judgements"]) == 8
    assert written["judgements"][0] < written["candidates"][-1]
