"""``selfreward show RUN PROMPT_ID``: a prompt, its answers, every vote in the judge's words, what was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selfreward.core.contracts.records import AnsweredPrompt, Candidate, Judgement, Prompt, Record, TrainingRow
from selfreward.core.errors import UserError
from selfreward.core.run.progress import Screen
from selfreward.core.store.artifacts import STAGE_FOLDERS, Artifact


def show(arguments: Sequence[str]) -> None:
    """Print the lineage of a prompt, or, without a prompt id, some prompts to choose from.

    Raises:
        UserError: not a run, or no such prompt.
    """
    if not 1 <= len(arguments) <= 2:
        raise UserError("usage: selfreward show RUN [PROMPT_ID]   (RUN is a run's folder, or a round's folder in it)")
    folder = Path(arguments[0])
    first = STAGE_FOLDERS["prompts"]
    rounds = [path.parent for path in sorted({*folder.glob(first), *folder.glob(f"*/{first}")})]
    if not rounds:
        raise UserError(f"{folder} is not the folder of a run: there is no round with prompts in it")
    screen = Screen()
    if len(arguments) == 1:
        for round in rounds:
            _sample(screen, round)
        return
    found = [
        round for round in rounds for prompt in _rows(round, "prompts", Prompt) if prompt.prompt_id == arguments[1]
    ]
    if not found:
        raise UserError(f"no prompt '{arguments[1]}' in {folder}; 'selfreward show {folder}' lists some")
    for round in found:
        _lineage(screen, round, arguments[1])


def _sample(screen: Screen, round: Path, most: int = 8) -> None:
    screen.rule(round.name)
    for prompt, _ in zip(_rows(round, "prompts", Prompt), range(most), strict=False):
        screen.line(f"  {prompt.prompt_id}  {prompt.text[:120]!r}")


def _lineage(screen: Screen, round: Path, prompt_id: str) -> None:
    prompt = next(p for p in _rows(round, "prompts", Prompt) if p.prompt_id == prompt_id)
    candidates = [c for c in _rows(round, "candidates", Candidate) if c.prompt_id == prompt_id]
    judged = {j.candidate_id: j for j in _rows(round, "judgements", Judgement)}
    group = AnsweredPrompt(prompt, candidates)
    screen.rule(f"{round.name} · prompt {prompt.prompt_id} · written by {prompt.source}")
    for message in group.prompt.messages:
        screen.line(f"{message['role']}: {message['content']}")
    for parent in prompt.parents:
        screen.line(f"  shown as an example: {parent}", "dim")
    trained_on = _rows(round, "training_set", None)
    roles = {name: role for row in trained_on for name, role in _roles(row, prompt_id)}
    for candidate in candidates:
        judgement = judged.get(candidate.candidate_id)
        score = "no score" if judgement is None or judgement.score is None else f"score {judgement.score:g}"
        facts = [candidate.candidate_id, candidate.model, f"seed {candidate.seed}", candidate.finish_reason, score]
        facts += [roles[candidate.candidate_id]] if candidate.candidate_id in roles else []
        screen.line("\ncandidate " + " · ".join(facts), "bold")
        screen.line(f"  {candidate.text}")
        for vote, words in zip(judgement.votes, judgement.rationales, strict=False) if judgement else ():
            screen.line(f"  vote {'unreadable' if vote is None else format(vote, 'g')}: {words}", "dim")


def _roles(row: TrainingRow, prompt_id: str) -> Iterator[tuple[str, str]]:
    if getattr(row, "prompt_id", None) == prompt_id:
        yield from ((getattr(row, field), role.upper()) for field, role in row.CANDIDATES.items())


def _rows(round: Path, stage: str, record: type[Record] | None) -> Iterator[Any]:
    """The rows of one of a round's tables; of the training set the record is not known beforehand."""
    table = Artifact.at(round / STAGE_FOLDERS[stage])
    known = record or table.row_type()
    return table.rows(known) if known else iter(())
