"""A stated sample of each round: prompts, their candidates, every vote in the judge's words, and what was trained on.

The sample of a round is the prompts with the smallest ``digest(seed, round, prompt_id)``: a uniform choice that depends
on nothing else. Shard ``i`` of every table belongs to shard ``i`` of the prompts, so one shard is in memory at a time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward.core.contracts.records import digest, row_type_of
from selfreward.core.errors import StageError
from selfreward.core.report.run_folder import RoundFolder, RunFolder
from selfreward.core.report.visible import shown, visible

if TYPE_CHECKING:
    import pyarrow as pa

_PROMPT = ("prompt_id", "messages", "source")
_CANDIDATE = ("prompt_id", "candidate_id", "text", "model", "rank", "finish_reason")
_JUDGEMENT = ("candidate_id", "judge", "model", "votes", "score", "rationales")


def sample(run: RunFolder, prompts: int) -> list[dict[str, Any]]:
    """Up to so many prompts of every round, in the rounds' order, then in the order they were written."""
    return [row for round in run.rounds for row in _of_round(round, run.seed, prompts)]


def _of_round(round: RoundFolder, seed: int, prompts: int) -> Iterator[dict[str, Any]]:
    drawn = set(_draw(round, seed, prompts))
    tables = {stage: round.shards(stage) for stage in ("candidates", "judgements", "training_set")}
    for index, path in enumerate(round.shards("prompts")):
        asked = rows(path, _PROMPT, "prompt_id", drawn)
        if not asked:
            continue
        ids = {prompt["prompt_id"] for prompt in asked}
        here = {stage: shards[index] for stage, shards in tables.items() if index < len(shards)}
        answers = rows(here["candidates"], _CANDIDATE, "prompt_id", ids) if "candidates" in here else []
        answered = {answer["candidate_id"] for answer in answers}
        verdicts = rows(here["judgements"], _JUDGEMENT, "candidate_id", answered) if "judgements" in here else []
        judged = {verdict["candidate_id"]: verdict for verdict in verdicts}
        roles = _selected(here["training_set"], ids) if "training_set" in here else {}
        for prompt in asked:
            mine = [answer for answer in answers if answer["prompt_id"] == prompt["prompt_id"]]
            shown_answers = [_answer(a, judged.get(a["candidate_id"]), roles.get(a["candidate_id"], "")) for a in mine]
            yield _prompt(round, prompt) | {"answers": shown_answers}


def _draw(round: RoundFolder, seed: int, prompts: int) -> list[str]:
    ids = (row["prompt_id"] for path in round.shards("prompts") for row in rows(path, ("prompt_id",)))
    return heapq.nsmallest(prompts, ids, key=lambda prompt_id: digest(seed, round.name, prompt_id))


def _prompt(round: RoundFolder, prompt: dict[str, Any]) -> dict[str, Any]:
    *earlier, last = prompt["messages"]
    return {
        "round": round.name,
        "id": visible(prompt["prompt_id"]),
        "source": visible(prompt["source"]),
        "prompt": shown(last["content"]),
        "earlier": [{"role": visible(turn["role"]), "text": shown(turn["content"])} for turn in earlier],
    }


def _answer(answer: dict[str, Any], verdict: dict[str, Any] | None, role: str) -> dict[str, Any]:
    words = verdict["rationales"] if verdict else []
    votes = verdict["votes"] if verdict else []
    words = [*words, *[""] * (len(votes) - len(words))]
    return {
        "id": visible(answer["candidate_id"]),
        "text": shown(answer["text"]),
        "model": visible(answer["model"]),
        "rank": answer["rank"],
        "finish": visible(answer["finish_reason"]),
        "role": role,
        "judge": visible(" by ".join(filter(None, [verdict["judge"], verdict["model"].strip("-")]))) if verdict else "",
        "score": verdict["score"] if verdict else None,
        "votes": [{"score": vote, "words": shown(said)} for vote, said in zip(votes, words, strict=False)],
    }


def _selected(path: Path, prompt_ids: set[str]) -> dict[str, str]:
    """Candidate id -> what it was trained as, for the rows of these prompts."""
    import pyarrow.parquet as pq

    with readable(path):
        became = row_type_of(pq.read_schema(path)).CANDIDATES
    roles: dict[str, str] = {}
    for row in rows(path, ["prompt_id", *became], "prompt_id", prompt_ids) if became else ():
        for column, role in became.items():
            known = roles.get(row[column], "")
            roles[row[column]] = known if role in known else " and ".join(filter(None, [known, role]))
    return roles


def rows(path: Path, columns: Any, key: str = "", wanted: set[str] | None = None) -> list[dict[str, Any]]:
    """Some columns of a Parquet file's rows, of those whose ``key`` is wanted.

    Raises:
        StageError: the file cannot be read.
    """
    table = column_table(path, columns)
    if wanted is not None:
        import pyarrow as pa
        import pyarrow.compute as pc

        table = table.filter(pc.is_in(table[key], pa.array(sorted(wanted), pa.string())))
    return table.to_pylist()


def column_table(path: Path, columns: Any) -> pa.Table:
    """Some columns of a Parquet file.

    Raises:
        StageError: the file cannot be read.
    """
    import pyarrow.parquet as pq

    with readable(path):
        return pq.read_table(path, columns=list(columns), use_threads=False)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What goes wrong while a file is read, told by its name."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as problem:
        raise StageError(f"{path} cannot be read: {problem}") from problem
