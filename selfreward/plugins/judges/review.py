"""What the judges share that let a model review answers: the question, and how a score is made to follow a review.

::

    question = the rubric's system turn, where it has one, and its template with prompt and response in it
    verdict  = review, line break where there is none, words before {score}  |  score's text
               "Topic fox yes, 1 ... Closing no, 3\\nScore:"                  |  " 3"

The space before a score belongs to the score's text: tokenisers join the two, so a prompt that ends in a space is one
that no model has seen. What the form has behind {score} ("/10", "]]") ends the score's text.

**References**: a rubric with {reference} shows the judge the answer that people ranked top, where the data has one for
the prompt (splits ``ift`` and ``evaluation``). Where that very answer is among the judged ones it would be compared
with itself, so there is none. What a rubric cannot be asked about is not asked about, and has no score.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from selfreward import (
    AnsweredPrompt,
    Asking,
    Candidate,
    Data,
    FileContext,
    Judge,
    Judgement,
    Message,
    Prompt,
    Rubric,
    StageContext,
    UserError,
    option,
    role,
)

Asked = tuple[Candidate, list[Message]]
"""A candidate and the conversation that asks for its review."""


@dataclass
class ReviewConfig:
    """Options of every judge that lets a model review."""

    rubric: str | None = None
    """Name of the rubric, a path to its .yaml file, or FILE.jsonl:NAME; None takes the one the model declares."""
    temperature: float = option(0.7, ge=0)
    """Sampling temperature of reviews; 0 is greedy."""
    top_p: float = option(0.9, gt=0, le=1)
    """Nucleus of reviews: the smallest set of tokens with this much probability is sampled from."""
    max_new_tokens: int = option(256, ge=1)
    """Tokens a review may have."""
    model: str = role("policy")
    """Role of the model that judges."""


class AskingJudge(Judge):
    """A judge that asks a model by a rubric."""

    uses_model = True
    name: ClassVar[str]
    compares: ClassVar[bool]
    """Whether it asks about two answers at once."""
    config: ReviewConfig

    @property
    def replies(self) -> int:
        """Replies that the model writes about one answer."""
        return 1

    def asks(self) -> Asking:
        return Asking(self.config.rubric, self.replies, self.config.max_new_tokens)

    def files(self, context: FileContext) -> list[Path]:
        return [context.rubric_path(self.config.rubric)]

    def problems(self, context: FileContext) -> list[str]:
        """A rubric that is not for this judge, or that none of the data's prompts fits."""
        rubric = context.rubric(self.config.rubric)
        if misfit := self._other_kind(rubric):
            return [misfit]
        if not rubric.turns and not rubric.needs_reference:
            return []
        best = references(context.data, 0)
        found = [
            rubric.misfit(
                *[dialogue(row.prompt, "")] * (1 + rubric.compares), references=best.get(row.prompt.prompt_id, [])
            )
            for row in _answered_by_people(context.data, 0)
        ]
        if not found or "" in found:
            return []
        where = f"judge={self.name}: rubric {rubric.name} {found[0]}"
        return [f"{where}; so it is with every prompt of the data: set another judge.rubric"]

    def rubric(self, context: StageContext) -> Rubric:
        """The rubric.

        Raises:
            UserError: it is not for this judge.
        """
        rubric = context.rubric(self.config.rubric)
        if misfit := self._other_kind(rubric):
            raise UserError(misfit)
        return rubric

    def _other_kind(self, rubric: Rubric) -> str:
        if rubric.compares == self.compares:
            return ""
        kinds = ("scores one answer", "compares two answers")
        other = "" if self.compares else "judge=pairwise, or "
        return (
            f"judge={self.name} {kinds[self.compares]}, and rubric {rubric.name} {kinds[rubric.compares]}: "
            f"use {other}another judge.rubric"
        )


class ReviewJudge(AskingJudge):
    """A judge that has one answer at a time reviewed."""

    compares = False

    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterator[Judgement]:
        rubric = self.rubric(context)
        rows = list(questions(answered, rubric, context))
        reviewed = iter(self.review([(candidate, asked) for candidate, asked, _ in rows if asked], rubric, context))
        for candidate, asked, why_not in rows:
            yield next(reviewed) if asked else unasked(candidate, self.name, rubric, context, why_not)

    @abstractmethod
    def review(self, asked: Sequence[Asked], rubric: Rubric, context: StageContext) -> Iterable[Judgement]:
        """One judgement for each of the candidates, in order."""


def questions(
    answered: Sequence[AnsweredPrompt], rubric: Rubric, context: StageContext
) -> Iterator[tuple[Candidate, list[Message], str]]:
    """Every candidate, in order, with the conversation that asks for its review, or with why it cannot be asked for."""
    best = references(context.data, context.run_seed) if rubric.needs_reference else {}
    for group in answered:
        reference = reference_of(group, best)
        for candidate in group.candidates:
            shown = dialogue(group.prompt, candidate.text)
            why_not = rubric.misfit(shown, references=reference)
            yield candidate, [] if why_not else rubric.messages(shown, references=reference), why_not


def unasked(candidate: Candidate, judge: str, rubric: Rubric, context: StageContext, why_not: str) -> Judgement:
    """The judgement of a candidate that the rubric cannot be asked about."""
    context.count(unasked=1)
    said = f"(not asked: rubric {rubric.name} {why_not})"
    return Judgement(candidate.candidate_id, judge, context.model, rubric.name, [None], None, [said])


def dialogue(prompt: Prompt, answer: str) -> list[Message]:
    """A prompt and an answer to it as one conversation."""
    return [*prompt.messages, {"role": "assistant", "content": answer}]


def references(data: Data, seed: int) -> dict[str, list[str]]:
    """By prompt id, the answer that people ranked top."""
    return {prompt_id: answers[:1] for prompt_id, answers in top_answers(data, seed).items()}


def top_answers(data: Data, seed: int) -> dict[str, list[str]]:
    """By prompt id, all answers that people ranked top; equal ranks in the order of their texts."""
    ranked = {
        row.prompt.prompt_id: [(c.rank, c.text) for c in row.candidates if c.rank is not None]
        for row in _answered_by_people(data, seed)
    }
    return {
        prompt_id: sorted({text for rank, text in answers if rank == min(answers)[0]})
        for prompt_id, answers in ranked.items()
        if answers
    }


def reference_of(group: AnsweredPrompt, best: dict[str, list[str]]) -> list[str]:
    """The references of a prompt, less those that are among the answers that are judged."""
    judged = {candidate.text for candidate in group.candidates if candidate.origin == "human"}
    return [text for text in best.get(group.prompt.prompt_id, []) if text not in judged]


def _answered_by_people(data: Data, seed: int) -> list[AnsweredPrompt]:
    return [row for split in ("evaluation", "ift") for row in data.split(split, seed)]


@dataclass(frozen=True)
class VerdictForm:
    """A rubric's verdict in pieces: ``words`` + one of the texts of ``scores`` (``Score:`` + `` 3``)."""

    words: str
    """The words before the score, without white space at their end."""
    scores: dict[str, float]
    """The number of each score's text: low, low + 1, ... as far as high."""

    @classmethod
    def of(cls, rubric: Rubric) -> VerdictForm:
        """The form of a rubric's verdict."""
        before, after = rubric.verdict.split("{score}")
        words = before.rstrip()
        space, end = before[len(words) :], after.rstrip()
        numbers = [rubric.low + step for step in range(int(rubric.high - rubric.low) + 1)]
        return cls(words, {f"{space}{number:g}{end}": number for number in numbers})

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the scores, lowest first."""
        return tuple(self.scores)

    @property
    def is_open(self) -> bool:
        """Whether one score's text begins another's (1 and 10), so that only the end of the reply tells them apart."""
        return any(one != other and other.startswith(one) for one in self.texts for other in self.texts)

    @property
    def most_tokens(self) -> int:
        """Tokens that any score's text has room in, its end included: no tokeniser makes two tokens of one byte."""
        return 2 + max(len(text.encode()) for text in self.texts)

    def after(self, review: str) -> str:
        """The review up to and with the words before its score.

        Marks that were opened for the verdict (``**Score:** 3``) are dropped: between the words and the score there
        would have to be more of them.
        """
        bare = review.rstrip("*_`")
        review = bare if not bare or bare[-1].isspace() else review
        line_break = "" if not review or review[-1].isspace() else "\n"
        return f"{review}{line_break}{self.words}"

    def read(self, text: str) -> float | None:
        """The number of a reply that was held to the scores' texts; None for any other text."""
        return {known.strip(): number for known, number in self.scores.items()}.get(text.strip())
