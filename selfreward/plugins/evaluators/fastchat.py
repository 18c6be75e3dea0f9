"""What the two benchmarks of FastChat share: questions in, answers and verdicts out.

Each model answers each question, turn by turn, with its own earlier answer before it. Then a judge

- grades each answer by itself, from 1 to 10 (``against`` names nobody), or
- compares it with another model's in both orders, a disagreement being a tie.

Questions that have a reference answer are judged with it. With ``judge_prompts`` the published prompts are asked:
``single-v1`` and ``pair-v2``, ``single-math-v1`` and ``pair-math-v1`` where there is a reference, and those with
``-multi-turn`` from the second turn on. An unreadable rating is left out and counted, and never becomes a number.
The evaluator leaves ``answers.jsonl`` (in FastChat's layout) and ``verdicts.jsonl`` beside its figures.
Source: arXiv:2306.05685 §2 and §3; temperatures by category as in FastChat's gen_model_answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from selfreward import (
    EvaluationContext,
    Evaluator,
    Figure,
    FileContext,
    Metric,
    Request,
    Rubric,
    Sampling,
    option,
    role,
)
from selfreward.formats.cells import Conversation
from selfreward.formats.fastchat import Question, read_answers, read_questions, write_answers, write_rows
from selfreward.plugins.evaluators import compare_pairs
from selfreward.plugins.evaluators.compare_pairs import Compared, Figures, Pair
from selfreward.plugins.evaluators.file_evaluator import tell_left_out
from selfreward.plugins.evaluators.intervals import Z


@dataclass
class FastChatConfig:
    """What is asked, and who judges how."""

    path: str = ""
    """FastChat's question file (question.jsonl)."""
    references: str | None = None
    """File of reference answers; None = reference_answer/gpt-4.jsonl beside the questions, where there is one."""
    per_category: int | None = option(None, ge=1)
    """Questions of each category, the first ones; None = all."""
    temperature: float | None = option(None, ge=0)
    """Sampling temperature of answers; None = FastChat's by category (0.7 writing, 0 math, ...)."""
    max_new_tokens: int = option(1024, ge=1)
    """Tokens an answer may have."""
    against: str | None = role(None, "previous", "judge")
    """The other model of a comparison: previous, a role or a model folder; None = answers are graded one by one."""
    against_answers: str | None = None
    """The other side of a comparison as a file of answers (FastChat's model_answer/NAME.jsonl)."""
    judge_model: str | None = role(None, "judge")
    """Who judges: None = this model itself, judge = the loop's judge, a role, or the path of a model folder."""
    judge_prompts: str | None = None
    """FastChat's judge_prompts.jsonl, to ask what was published; None = this project's own wording of it."""
    rubric: str | None = None
    """One rubric for all questions, by name, .yaml file or FILE.jsonl:NAME; None = as judge_prompts says."""
    judge_temperature: float = option(0.0, ge=0)
    """Sampling temperature of verdicts; 0 is greedy."""
    judge_max_new_tokens: int = option(2048, ge=1)
    """Tokens a verdict may have."""

    @property
    def reference_file(self) -> Path | None:
        """The file of reference answers, where there is one."""
        beside = Path(self.path).parent / "reference_answer" / "gpt-4.jsonl"
        return Path(self.references) if self.references else beside if beside.is_file() else None

    @property
    def compares(self) -> bool:
        """Whether answers are compared with another side's."""
        return bool(self.against or self.against_answers)

    def rubric_for(self, turn: int, referenced: bool) -> str:
        """The rubric of the answer to a question's first or second ... turn."""
        if self.rubric:
            return self.rubric
        if self.judge_prompts:
            kind, version = ("pair", "v2") if self.compares else ("single", "v1")
            name = f"{kind}-{'math-v1' if referenced else version}{'-multi-turn' * (turn > 1)}"
            return f"{self.judge_prompts}:{name}"
        return "pairwise" if self.compares else "reference_guided" if referenced else "scalar"

    def problems(self) -> list[str]:
        """Rules between options."""
        found = []
        if not self.path:
            found.append("path= must name FastChat's question file (data/mt_bench/question.jsonl or the like)")
        if self.against and self.against_answers:
            found.append("against and against_answers both name the other side of the comparison: set one of them")
        if self.rubric and self.judge_prompts:
            found.append("rubric and judge_prompts both say what the judge is asked: set one of them")
        return found


@dataclass(frozen=True)
class Item:
    """One answer to be judged: that to a question's first or second ... turn."""

    question: Question
    turn: int
    rubric: Rubric

    @property
    def references(self) -> Sequence[str]:
        """Reference answers up to this turn, where the rubric shows them."""
        return self.question.references[: self.turn] if self.rubric.needs_reference else ()

    def shown(self, dialogue: Conversation) -> Conversation:
        """The dialogue as far as this answer."""
        return dialogue[: 2 * self.turn]


class FastChatBenchmark(Evaluator):
    """Answers FastChat's questions, and has the answers graded or compared."""

    name: ClassVar[str]
    uses_answers = False
    config: FastChatConfig
    figures = (Figure("*_score*", better="higher"), Figure("*_turn_*", better="higher"), *compare_pairs.SHARES)

    def files(self, context: FileContext) -> list[Path]:
        c = self.config
        given = [Path(c.path), c.reference_file, Path(c.against_answers) if c.against_answers else None]
        rubrics = {context.rubric_path(c.rubric_for(turn, known)) for turn in (1, 2) for known in (False, True)}
        return [*(path for path in given if path), *sorted(rubrics)]

    def problems(self, context: FileContext) -> list[str]:
        c = self.config
        questions, _ = read_questions(Path(c.path), c.reference_file, c.per_category)
        if c.against_answers:
            read_answers(Path(c.against_answers))
        items = list(self._items(questions, context))
        rubrics = {item.rubric.name: item.rubric for item in items}.values()
        found = [p for rubric in rubrics for p in compare_pairs.rubric_problems(self.name, rubric, c.compares)]
        if c.compares and not found and any(item.turn > max(item.rubric.turns, 1) for item in items):
            found.append(
                f"{self.name}: to compare answers to a second turn, the judge must be shown both conversations: set "
                f"{self.name}.judge_prompts to FastChat's judge_prompts.jsonl, or grade them one by one (no against)"
            )
        return found

    def evaluate(self, context: EvaluationContext) -> Iterator[Metric]:
        """Scores, or shares of wins, over all questions and by category."""
        c = self.config
        judge = compare_pairs.judge_of(context, c.judge_model)
        other = compare_pairs.opponent(context, c.against) if c.against else None
        if judge is None or (c.against and other is None):
            return
        questions, left_out = read_questions(Path(c.path), c.reference_file, c.per_category)
        theirs, more = read_answers(Path(c.against_answers)) if c.against_answers else ({}, [])
        tell_left_out(context, left_out + more)
        answers = self._answers(questions, context)
        write_answers(context.folder / "answers.jsonl", questions, answers, context.model)
        if other:
            theirs = {name: _said(dialogue) for name, dialogue in self._answers(questions, other).items()}
        items = list(self._items(questions, judge))
        figures = Figures(context.model, self.name, f"{self.name}_")
        if c.compares:
            yield from self._compare(items, answers, theirs, judge, context, figures)
        else:
            yield from self._grade(items, answers, judge, context, figures)

    def _items(self, questions: Sequence[Question], context: FileContext | EvaluationContext) -> Iterator[Item]:
        """Every answer to be judged, and by what."""
        rubrics: dict[str, Rubric] = {}
        for question in questions:
            for turn in range(1, len(question.turns) + 1):
                name = self.config.rubric_for(turn, len(question.references) >= turn)
                if name not in rubrics:
                    rubrics[name] = context.rubric(name)
                yield Item(question, turn, rubrics[name])

    def _answers(self, questions: Sequence[Question], context: EvaluationContext) -> dict[int | str, Conversation]:
        """A model's answers: all first turns in one call, then all second ones, ..."""
        c = self.config
        dialogues: dict[int | str, Conversation] = {question.id: [] for question in questions}
        for turn in range(max(len(question.turns) for question in questions)):
            asked = [question for question in questions if len(question.turns) > turn]
            requests = []
            for question in asked:
                dialogues[question.id].append({"role": "user", "content": question.turns[turn]})
                heat = question.temperature if c.temperature is None else c.temperature
                how = Sampling(heat, max_new_tokens=c.max_new_tokens)
                requests.append(Request([*dialogues[question.id]], how, context.seed("answer", question.id, turn)))
            for question, [reply] in zip(asked, context.generate(requests), strict=True):
                dialogues[question.id].append({"role": "assistant", "content": reply.text})
                context.count(cut_off=reply.finish_reason == "length")
        return dialogues

    def _how(self) -> Sampling:
        return Sampling(self.config.judge_temperature, max_new_tokens=self.config.judge_max_new_tokens)

    def _grade(
        self,
        items: Sequence[Item],
        answers: Mapping[int | str, Conversation],
        judge: EvaluationContext,
        context: EvaluationContext,
        figures: Figures,
    ) -> Iterator[Metric]:
        """A rating of each answer by itself: means over all, by turn and by category."""
        asked, requests = [], []
        for item in items:
            dialogue = item.shown(answers[item.question.id])
            if item.rubric.misfit(dialogue, references=item.references):
                context.count(without_reference=1)
                continue
            asked.append(item)
            shown = item.rubric.messages(dialogue, references=item.references)
            seed = judge.seed("grade", item.question.id, item.turn)
            requests.append(Request(shown, self._how(), seed, reply_prefix=item.rubric.reply_prefix))
        replies = [reply for [reply] in judge.generate(requests)]
        ratings = [
            item.rubric.read(reply.text, cut_off=reply.finish_reason == "length")
            for item, reply in zip(asked, replies, strict=True)
        ]
        write_rows(
            context.folder / "verdicts.jsonl",
            (
                _place(item, judge) | {"score": rating, "judgment": item.rubric.reply_prefix + reply.text}
                for item, rating, reply in zip(asked, ratings, replies, strict=True)
            ),
        )
        rated = [(item, rating) for item, rating in zip(asked, ratings, strict=True) if rating is not None]
        yield _mean_rating(figures, "score", rated)
        turns = sorted({item.turn for item in asked})
        for turn in turns if len(turns) > 1 else []:
            yield _mean_rating(figures, f"turn_{turn}", [row for row in rated if row[0].turn == turn])
        for category in _categories(asked):
            of_it = [row for row in rated if row[0].question.category == category]
            yield _mean_rating(figures, _named("score", category), of_it)
        yield figures.parsed(ratings)
        yield figures.mean("answer_length", [len(said) for dialogue in answers.values() for said in _said(dialogue)])

    def _compare(
        self,
        items: Sequence[Item],
        answers: Mapping[int | str, Conversation],
        theirs: Mapping[int | str, Sequence[str]],
        judge: EvaluationContext,
        context: EvaluationContext,
        figures: Figures,
    ) -> Iterator[Metric]:
        """Each answer against the other side's to the same turn: wins over all, win rate by category."""
        asked, pairs = [], []
        for item in items:
            mine, other = item.shown(answers[item.question.id]), theirs.get(item.question.id, ())[: item.turn]
            if len(other) < item.turn:
                context.count(without_opponent=1)
                continue
            against = _dialogue(item.question, other)
            if item.rubric.misfit(mine, against, item.references):
                context.count(without_reference=1)
                continue
            asked.append(item)
            pairs.append(Pair(f"{item.question.id} {item.turn}", mine, against, item.references))
        compared = compare_pairs.in_both_orders(pairs, [item.rubric for item in asked], judge, self._how())
        rows = (_place(item, judge) | _verdicts(said) for item, said in zip(asked, compared, strict=True))
        write_rows(context.folder / "verdicts.jsonl", rows)
        pairs = [replace(pair, preference=said.preference) for pair, said in zip(pairs, compared, strict=True)]
        yield from figures.pairs(pairs)
        for category in _categories(asked):
            of_it = [pair for pair, item in zip(pairs, asked, strict=True) if item.question.category == category]
            yield figures.win_rate(_named("win_rate", category), of_it)
        yield figures.parsed([v for said in compared for v in said.verdicts])
        yield figures.orders_agree(compared)


def _mean_rating(figures: Figures, name: str, rated: Sequence[tuple[Item, float]]) -> Metric:
    """The mean rating; the turns of one question are no independent items, so the interval is over questions.

    SE² = Q / (Q - 1) · Σ_q (Σ_t (x_qt - mean))² / N², for Q questions and N ratings; with one turn each it is s² / N.
    """
    if len(rated) < 2:
        return figures.of(name, None, None, None, len(rated))
    mean = fmean(rating for _, rating in rated)
    off: dict[int | str, float] = {}
    for item, rating in rated:
        off[item.question.id] = off.get(item.question.id, 0.0) + rating - mean
    if len(off) < 2:  # one question alone has no spread
        return figures.of(name, mean, None, None, len(rated))
    half = Z * math.sqrt(len(off) / (len(off) - 1) * sum(o * o for o in off.values())) / len(rated)
    return figures.of(name, mean, mean - half, mean + half, len(rated))


def _categories(items: Sequence[Item]) -> list[str]:
    return list(dict.fromkeys(item.question.category for item in items))


def _named(figure: str, category: str) -> str:
    return f"{figure}_{category.replace('-', '_').replace(' ', '_')}"


def _said(dialogue: Conversation) -> list[str]:
    return [turn["content"] for turn in dialogue if turn["role"] == "assistant"]


def _dialogue(question: Question, said: Sequence[str]) -> Conversation:
    both = zip(question.turns, said, strict=False)
    turns = [({"role": "user", "content": asked}, {"role": "assistant", "content": answer}) for asked, answer in both]
    return [message for turn in turns for message in turn]


def _place(item: Item, judge: EvaluationContext) -> dict[str, object]:
    return {"question_id": item.question.id, "turn": item.turn, "judge": [judge.model, item.rubric.name]}


def _verdicts(said: Compared) -> dict[str, object]:
    return {"preference": said.preference, "by_order": said.verdicts, "judgments": said.rationales}
