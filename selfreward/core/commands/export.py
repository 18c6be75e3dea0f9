"""``selfreward export RUN OUT``: what a run made, in the form in which others load it.

``OUT/model`` is the final checkpoint with a model card; ``OUT/dataset`` holds the training rows and the judgements as a
dataset folder with its card::

    AutoModelForCausalLM.from_pretrained("OUT/model")
    load_dataset("OUT/dataset", "preferences", split="iter_02")

Tables are copied shard by shard, so memory does not grow with them. Texts are those of the run, untouched.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward.core.contracts.records import TRAINING_ROWS, JudgedPrompt, Message, Record, TrainingRow
from selfreward.core.errors import UserError
from selfreward.core.report.figures import figure_groups
from selfreward.core.report.run_command import command
from selfreward.core.report.run_folder import STAGES, RoundFolder, RunFolder, read_run
from selfreward.core.run.progress import Screen
from selfreward.core.store.artifacts import Artifact, Key
from selfreward.core.store.tables import judged_shards

if TYPE_CHECKING:
    import pyarrow as pa

JUDGEMENTS = "judgements"


def export(arguments: Sequence[str]) -> None:
    """Write a run's final model and data into a folder.

    Raises:
        UserError: not a run, nothing in it to export yet, or a folder that is not empty.
    """
    parser = argparse.ArgumentParser(prog="selfreward export", description="Write a run's model and data to a folder.")
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("out", type=Path, help="folder to write into; it must not exist, or be empty")
    given = parser.parse_args(list(arguments))
    run = read_run(given.run)
    trained = [round for round in run.rounds if round.makes and round.kind == "policy"]
    if not trained:
        raise UserError(f"{given.run}: no round of this run has made a model yet, so there is nothing to export")
    if given.out.exists() and (not given.out.is_dir() or any(given.out.iterdir())):
        raise UserError(f"{given.out} is there and is no empty folder; name another one")
    # under another name until it is whole
    unfinished = given.out.with_name(f".{given.out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    tables = _write_tables(run, unfinished / "dataset")
    (unfinished / "dataset" / "README.md").write_text(_dataset_card(run, tables), encoding="utf-8")
    shutil.copytree(trained[-1].folder / STAGES["model"], unfinished / "model", ignore=_not_of_the_model)
    (unfinished / "model" / "README.md").write_text(_model_card(run, trained[-1]), encoding="utf-8")
    if given.out.exists():
        given.out.rmdir()
    os.replace(unfinished, given.out)
    rows = sum(count for splits in tables.values() for count in splits.values())
    Screen().line(f"{given.out / 'model'}    {trained[-1].makes}\n{given.out / 'dataset'}  {rows:,} rows")


def _not_of_the_model(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("manifest.json", "training.jsonl") or name.startswith(".")]


def _write_tables(run: RunFolder, out: Path) -> dict[str, dict[str, int]]:
    """Copy training sets and judgements; table -> split -> rows."""
    tables: dict[str, dict[str, int]] = {}
    for round in run.rounds:
        split = round.name.replace("-", "_")
        for name, rows in ((_kind(round), _training_rows(round)), (JUDGEMENTS, _judgement_rows(round))):
            if name and (count := _write(rows, out / name, split)):
                tables.setdefault(name, {})[split] = count
    return tables


def _write(shards: Iterator[pa.Table], folder: Path, split: str) -> int:
    import pyarrow.parquet as pq

    count, writer = 0, None
    try:
        for table in shards:
            if writer is None:
                folder.mkdir(parents=True, exist_ok=True)
                writer = pq.ParquetWriter(folder / f"{split}.parquet", table.schema, compression="zstd")
            writer.write_table(table)
            count += len(table)
    finally:
        if writer:
            writer.close()
    return count


def _artifact(round: RoundFolder, stage: str) -> Artifact:
    return Artifact(round.folder / STAGES[stage], Key(stage, {}))


def _record(round: RoundFolder) -> type[TrainingRow] | None:
    import pyarrow.parquet as pq

    shards = round.shards("training_set")
    if not shards:
        return None
    name = (pq.read_schema(shards[0]).metadata or {})[b"selfreward.record"].decode()
    return next(record for record in TRAINING_ROWS.values() if record.__name__ == name)


def _kind(round: RoundFolder) -> str:
    record = _record(round)
    return next((kind for kind, known in TRAINING_ROWS.items() if known is record), "")


def _training_rows(round: RoundFolder) -> Iterator[pa.Table]:
    record = _record(round)
    artifact = _artifact(round, "training_set")
    if record:
        yield from (record.table(artifact.rows(record, index)) for index in range(len(artifact.shards)))


def _judgement_rows(round: RoundFolder) -> Iterator[pa.Table]:
    """One row a judged answer, where a model judged: the question, the answer, every vote with the judge's words."""
    if not round.manifests.get("judgements", {}).get("parts", {}).get("model"):
        return
    for shard in judged_shards(*(_artifact(round, stage) for stage in ("prompts", "candidates", "judgements"))):
        yield JudgedAnswer.table(row for group in shard for row in _judged(group))


@dataclass(frozen=True, slots=True)
class JudgedAnswer(Record):
    """A row of the exported judgements."""

    prompt: list[Message]
    response: str
    answered_by: str
    score: float | None
    votes: list[float | None]
    rationales: list[str]
    judge: str
    judged_by: str
    rubric: str
    prompt_id: str
    candidate_id: str


def _judged(group: JudgedPrompt) -> Iterator[JudgedAnswer]:
    for candidate, said in zip(group.candidates, group.judgements, strict=True):
        yield JudgedAnswer(
            group.prompt.messages, candidate.text, candidate.model, said.score, said.votes, said.rationales,
            said.judge, said.model, said.rubric, group.prompt.prompt_id, candidate.candidate_id,
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- cards


def _dataset_card(run: RunFolder, tables: dict[str, dict[str, int]]) -> str:
    from huggingface_hub import DatasetCardData

    configs = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"{name}/{split}.parquet"} for split in splits],
        }
        for name, splits in tables.items()
    ]
    data = DatasetCardData(tags=["selfreward", "preference", "llm-as-a-judge"], configs=configs)
    rows = [f"| {name} | {split} | {count:,} |" for name, splits in tables.items() for split, count in splits.items()]
    what = (
        "Every row was made in one run of [selfreward](https://arxiv.org/abs/2401.10020): answers by a model, scores "
        "by an LLM judge. `preferences`, `demonstrations` and `scored` are what the models were trained on, in TRL's "
        "conversational format; `judgements` holds every judged answer with all votes (null = the verdict could not be "
        "read) and the judge's own words. Ids lead from one table to the other."
    )
    table = ["| config | split | rows |", "| --- | --- | --- |", *rows]
    return _card(data, "Self-rewarded preferences", [what, "\n".join(table), *_about(run)])


def _model_card(run: RunFolder, last: RoundFolder) -> str:
    from huggingface_hub import ModelCardData

    base = (run.config.get("model") or {}).get("path")
    data = ModelCardData(
        base_model=base if base and not Path(base).exists() else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["selfreward", "self-rewarding"],
    )
    start = f"{last.makes}, trained from {last.start} in round `{last.name}`"
    return _card(data, f"{last.makes} of a self-rewarding run", [f"This is {start}.", *_about(run)])


def _about(run: RunFolder) -> Iterator[str]:
    """How it was made, for both cards: command, choices, rounds, figures."""
    if asked := command(run):
        yield f"## How it was made\n\n```\n{asked}\n```"
    choices = [f"| {kind} | {_cell(chosen)} |" for kind, chosen in run.choices]
    yield "\n".join(["## Choices", "", "| what | chosen |", "| --- | --- |", *choices])
    rounds = [
        f"| {r.name} | {r.start} → {r.makes} | {r.figures('prompts').get('rows', 0):,.0f} "
        f"| {r.figures('candidates').get('rows', 0):,.0f} | {r.figures('model').get('training_rows', 0):,.0f} |"
        for r in run.rounds
    ]
    head = ["| round | model | prompts | answers | rows trained on |", "| --- | --- | --- | --- | --- |"]
    yield "\n".join(["## Rounds", "", *head, *rounds])
    if run.unfinished:
        yield f"**{run.unfinished}**"
    for group in figure_groups(run):
        lines = [f"| {group['title']} | {' | '.join(group['models'])} |", "| --- |" + " --- |" * len(group["models"])]
        for row in group["rows"]:
            cells = [f"{c['value']} ({c['interval']})" if c["interval"] else c["value"] for c in row["cells"]]
            lines.append(f"| {row['label']} | {' | '.join(cells)} |")
        yield "\n".join(["## Figures: " + group["title"], "", *lines])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _card(data: Any, title: str, parts: Sequence[str]) -> str:
    return "\n\n".join([f"---\n{data.to_yaml()}\n---", f"# {title}", *parts]) + "\n"
