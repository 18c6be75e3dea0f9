"""AlpacaEval: a model's answers against a baseline's, one comparison each, in an order drawn by lot.

The model answers the instructions of a file, and ``outputs.json`` (what the ``alpaca_eval`` package takes as
``--model_outputs``) is left beside the figures; without a baseline that is all. Each answer is compared with the
baseline's

- by the judge here: asked once, which answer comes first being drawn from the instruction, in the package's own way;
  ``annotations.json`` is left beside the figures, in the package's layout; or
- by ``annotations``, the package's annotations.json; the model then writes nothing.

::

    preference        = 1 the baseline (output_1) wins ... 2 the model (output_2) wins; 1.5 or 0 a tie; null unreadable
    win_rate          = mean (preference - 1),   standard_error = s / √n
    discrete_win_rate = wins + ½ ties of the preferences rounded to a win or a loss
    lc_win_rate       = the win rate at equal length (length_control)

All of them are shares from 0 to 1; the package writes percent.
Source: arXiv:2305.14387 §3, arXiv:2404.04475; the package alpaca_eval 0.6.6.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import stdev
from typing import Any

from selfreward import EvaluationContext, Evaluator, FileContext, Metric, Request, Sampling, option, role
from selfreward.formats import files
from selfreward.formats.cells import BadRow, cell, text, text_of
from selfreward.plugins.evaluators.compare_pairs import (
    SHARES,
    Figures,
    Pair,
    judge_of,
    opponent,
    rubric_problems,
)
from selfreward.plugins.evaluators.file_evaluator import tell_left_out


@dataclass
class AlpacaEvalConfig:
    """What is asked, what it is compared with, and by whom."""

    path: str = ""
    """Instructions: a JSON list or JSON Lines with ``instruction`` (AlpacaEval's alpaca_eval.json, Self-Instruct's)."""
    n: int | None = option(None, ge=2)
    """Instructions, the first ones; None = all."""
    temperature: float = option(0.7, ge=0)
    """Sampling temperature of answers; 0 is greedy."""
    top_p: float = option(0.9, gt=0, le=1)
    """Nucleus of answers: the smallest set of tokens with this much probability is sampled from."""
    max_new_tokens: int = option(2048, ge=1)
    """Tokens an answer may have."""
    reference_outputs: str | None = None
    """The baseline's answers as a file: instruction, output and generator; None = those in the file of instructions."""
    against: str | None = role(None, "previous", "judge")
    """A model as the baseline: previous, a role (base, M0, sft, M1, ...) or the path of a model folder."""
    annotations: str | None = None
    """The package's annotations.json, to take its preferences instead of asking a judge."""
    generator: str | None = None
    """The model's name in files; None = its role."""
    judge_model: str | None = role(None, "judge")
    """Who judges: None = this model itself, judge = the loop's judge, a role, or the path of a model folder."""
    rubric: str = "pairwise"
    """What the judge is asked: a rubric that compares two answers, by name, .yaml file or FILE.jsonl:NAME."""
    judge_temperature: float = option(0.0, ge=0)
    """Sampling temperature of verdicts; 0 is greedy."""
    judge_max_new_tokens: int = option(1024, ge=1)
    """Tokens a verdict may have."""

    def problems(self) -> list[str]:
        """Rules between options."""
        found = []
        if not (self.path or self.annotations):
            found.append("path= must name a file of instructions, or annotations= the package's annotations.json")
        if self.against and self.reference_outputs:
            found.append("against and reference_outputs both name the baseline: set one of them")
        if self.annotations and (self.against or self.reference_outputs or self.judge_model):
            found.append("annotations holds the baseline's answers and the verdicts: set no against, reference_outputs "
                         "or judge_model beside it")  # fmt: skip
        return found


@dataclass(frozen=True)
class Instruction:
    """A row of a file of instructions or outputs."""

    text: str
    dataset: str | None
    output: str | None
    generator: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> Instruction:
        """``instruction``, and what there is of ``output``, ``generator`` and ``dataset``.

        Self-Instruct keeps the text that an instruction is about, and a person's answer, in ``instances``: the input
        follows the instruction, and the answer serves as the baseline's.
        """
        asked, output, generator = text_of(row, "instruction"), row.get("output"), row.get("generator", "baseline")
        instances = row.get("instances")
        if isinstance(instances, list) and instances and isinstance(instances[0], dict):
            asked += f"\n\n{text_of(instances[0], 'input')}" if instances[0].get("input") else ""
            output, generator = instances[0].get("output"), "human"
        output = None if output is None else text(output, "output", may_be_empty=True)
        return cls(asked, row.get("dataset"), output, str(generator))


@dataclass(frozen=True)
class Annotation:
    """A comparison, in the package's layout: output_1 is the baseline's, output_2 the model's."""

    instruction: str
    output_1: str
    output_2: str
    generator_1: str
    generator_2: str
    preference: float | None
    """1 to 2, 2 where the model wins; None = unreadable."""
    dataset: str | None = None
    annotator: str = ""
    raw_completion: str | None = None

    @classmethod
    def of(cls, row: dict[str, Any]) -> Annotation:
        """A row of annotations.json."""
        first, second = (text_of(row, column, may_be_empty=True) for column in ("output_1", "output_2"))
        preference = cell(row, "preference")
        if preference is not None and (isinstance(preference, bool) or not isinstance(preference, int | float)):
            raise BadRow(f"'preference' must be a number, got {preference!r}")
        if preference is None or math.isnan(preference):
            preference = None
        elif preference == 0:  # how old files write a tie
            preference = 1.5
        elif not 1 <= preference <= 2:
            raise BadRow(f"'preference' must lie between 1 and 2, got {preference}")
        names = str(cell(row, "generator_1")), str(cell(row, "generator_2"))
        return cls(text_of(row, "instruction"), first, second, *names, preference)

    def seen_by(self, generator: str) -> Annotation | None:
        """The same with this model as the second one; None where it is none of the two."""
        if self.generator_2 == generator:
            return self
        if self.generator_1 != generator:
            return None
        other = None if self.preference is None else 3 - self.preference
        return Annotation(
            self.instruction, self.output_2, self.output_1, self.generator_2, self.generator_1, other, self.dataset
        )

    @property
    def pair(self) -> Pair:
        """The model's answer and the baseline's."""
        asked = {"role": "user", "content": self.instruction}
        mine, theirs = ([asked, {"role": "assistant", "content": said}] for said in (self.output_2, self.output_1))
        preference = None if self.preference is None else self.preference - 1
        return Pair(self.instruction, mine, theirs, preference=preference)


class AlpacaEval(Evaluator):
    """Win rate against a baseline, plain, discrete and at equal length."""

    uses_answers = False
    config: AlpacaEvalConfig
    figures = SHARES

    def files(self, context: FileContext) -> list[Path]:
        c = self.config
        given = [Path(name) for name in (c.path, c.reference_outputs, c.annotations) if name]
        return given if c.annotations else [*given, context.rubric_path(c.rubric)]

    def problems(self, context: FileContext) -> list[str]:
        c = self.config
        if c.annotations:
            files.read(Path(c.annotations), Annotation.of)
            return []
        instructions, baseline, _ = self._read()
        found = rubric_problems("alpaca_eval", context.rubric(c.rubric))
        if c.reference_outputs and not any(one.text in baseline for one in instructions):
            found.append(f"alpaca_eval: {c.reference_outputs} has no 'output' to any instruction of {c.path}")
        return found

    def evaluate(self, context: EvaluationContext) -> Iterator[Metric]:
        """Win rates with standard error, lengths of both sides, and the share of verdicts that could be read."""
        if self.config.annotations:
            yield from _figures(self._read_annotations(context), context)
            return
        c = self.config
        judge = judge_of(context, c.judge_model)
        other = opponent(context, c.against) if c.against else None
        if judge is None or (c.against and other is None):
            return
        instructions, baseline, left_out = self._read()
        tell_left_out(context, left_out)
        answered = self._answers(instructions, context, c.generator or context.model)
        _write(context.folder / "outputs.json", [_output(one) for one in answered])
        if other:
            baseline = {one.text: one for one in self._answers(instructions, other, other.model)}
        if not baseline:
            yield _named(context).mean("answer_length", [len(one.output or "") for one in answered])
            return
        known = [one for one in answered if one.text in baseline]
        context.count(without_opponent=len(answered) - len(known))
        annotations = self._judged([_unjudged(one, baseline[one.text]) for one in known], judge)
        _write(context.folder / "annotations.json", [vars(annotation) for annotation in annotations])
        yield from _figures(annotations, context)

    # ------------------------------------------------------------------ the package's verdicts

    def _read_annotations(self, context: EvaluationContext) -> list[Annotation]:
        rows, left_out = files.read(Path(self.config.annotations or ""), Annotation.of)
        name = self.config.generator or context.model
        found = [mine for row in rows if (mine := row.seen_by(name))]
        others = [row for row in rows if not row.seen_by(name)]
        left_out += [f"an annotation compares {row.generator_1} with {row.generator_2}" for row in others]
        tell_left_out(context, left_out)
        return found

    # ------------------------------------------------------------------ a judge's verdicts

    def _read(self) -> tuple[list[Instruction], dict[str, Instruction], list[str]]:
        """The instructions, the baseline's answers by instruction, and what was left out."""
        c = self.config
        instructions, left_out = files.read(Path(c.path), Instruction.of)
        given = instructions
        if c.reference_outputs:
            given, more = files.read(Path(c.reference_outputs), Instruction.of)
            left_out += more
        return instructions[: c.n], {one.text: one for one in given if one.output is not None}, left_out

    def _answers(self, instructions: Sequence[Instruction], context: EvaluationContext, name: str) -> list[Instruction]:
        c = self.config
        how = Sampling(c.temperature, c.top_p, max_new_tokens=c.max_new_tokens)
        asked = [[{"role": "user", "content": one.text}] for one in instructions]
        seeds = [context.seed("answer", one.text) for one in instructions]
        requests = [Request(messages, how, seed) for messages, seed in zip(asked, seeds, strict=True)]
        replies = [reply for [reply] in context.generate(requests)]
        context.count(cut_off=sum(reply.finish_reason == "length" for reply in replies))
        return [
            replace(one, output=reply.text, generator=name) for one, reply in zip(instructions, replies, strict=True)
        ]

    def _judged(self, unjudged: Sequence[Annotation], judge: EvaluationContext) -> list[Annotation]:
        """The annotations with the judge's preferences; the same text from both sides is a tie, and is not asked."""
        c, rubric = self.config, judge.rubric(self.config.rubric)
        how = Sampling(c.judge_temperature, max_new_tokens=c.judge_max_new_tokens)
        requests = []
        for annotation in (a for a in unjudged if a.output_1 != a.output_2):
            sides = (annotation.pair.theirs, annotation.pair.mine)
            shown = rubric.messages(*(sides[::-1] if is_switched(annotation.instruction) else sides))
            seed = judge.seed("pair", annotation.instruction)
            requests.append(Request(shown, how, seed, reply_prefix=rubric.reply_prefix))
        replies = iter([reply for [reply] in judge.generate(requests)])
        judged = []
        for annotation in unjudged:
            who = f"{judge.model} {rubric.name}"
            if annotation.output_1 == annotation.output_2:
                judged.append(replace(annotation, preference=1.5, annotator=who))
                continue
            reply = next(replies)
            first_is_better = rubric.read(reply.text, cut_off=reply.finish_reason == "length")
            found = _preference(first_is_better, is_switched(annotation.instruction))
            said = rubric.reply_prefix + reply.text
            judged.append(replace(annotation, preference=found, annotator=who, raw_completion=said))
        return judged


def _named(context: EvaluationContext) -> Figures:
    return Figures(context.model, "alpaca_eval", "alpaca_eval_")


def _figures(annotations: Sequence[Annotation], context: EvaluationContext) -> Iterator[Metric]:
    figures, pairs = _named(context), [annotation.pair for annotation in annotations]
    liked = [pair.preference for pair in pairs if pair.preference is not None]
    n = len(liked)
    yield from figures.pairs(pairs)
    yield figures.of("standard_error", stdev(liked) / math.sqrt(n) if n > 1 else None, None, None, n)
    yield figures.share("discrete_win_rate", sum(0.5 if p == 0.5 else float(p > 0.5) for p in liked), n)
    yield figures.parsed([pair.preference for pair in pairs if pair.mine != pair.theirs])


def is_switched(instruction: str, seed: int = 0) -> bool:
    """Whether the model's answer is shown first; the same draw as the package's, whose annotators have seed 0."""
    return random.Random(f"is_switched_outputs{instruction}{seed}").random() >= 0.5


def _preference(first_is_better: float | None, switched: bool) -> float | None:
    """1 where the baseline wins, 2 where the model does, which was shown first if the order was switched."""
    if first_is_better is None:
        return None
    return 1 + first_is_better if switched else 2 - first_is_better


def _unjudged(mine: Instruction, theirs: Instruction) -> Annotation:
    outputs = (theirs.output or "", mine.output or "")
    return Annotation(mine.text, *outputs, theirs.generator, mine.generator, None, mine.dataset)


def _output(one: Instruction) -> dict[str, Any]:
    row = {"instruction": one.text, "output": one.output, "generator": one.generator}
    return row if one.dataset is None else row | {"dataset": one.dataset}


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
