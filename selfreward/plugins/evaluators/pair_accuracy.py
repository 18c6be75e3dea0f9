"""Accuracy on pairs of replies: how often the reply that people preferred is the one that scores higher.

::

    accuracy = (hits + ½·ties) / n    or, with ties=wrong,    hits / n

What scores a reply:

- ``likelihood``: log p(reply, end of turn | conversation), summed over the tokens as BIG-bench grades multiple choice
  (arXiv:2206.04615). The sum favours short replies: a model that knows nothing is not at 50 % but near 100 % less the
  length control. With ``length_normalised`` it is the mean over the tokens;
- ``judge``: the run's judge prompt with this model as the judge. A pair with a verdict that cannot be read is wrong, so
  that nothing is gained by being unreadable;
- ``length``: characters. It knows nothing, and is the control that the others have to beat;
- or the reward of a reward model (``reward_accuracy``).

Ties count half, the value of a coin that is thrown: so published figures of the control count them, and a judge that
gives every reply the same score is at 50 %, where chance is. The table of self-rewarding judges calls a judged tie
wrong (arXiv:2401.10020 §3.1): ``ties=wrong``. Equal texts are a tie, whoever scores them. A pair with a reply that does
not fit into the context is left out, and counted. The interval is Wilson's; with ties counted half it is a little wider
than it had to be.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from selfreward import AnsweredPrompt, Candidate, Continuations, EvaluationContext, Figure, Metric, Prompt, option
from selfreward.plugins.evaluators.file_evaluator import FileEvaluator, tell_left_out
from selfreward.plugins.evaluators.intervals import share_interval
from selfreward.plugins.evaluators.preference_pairs import Pair, ranked_pairs, read_pairs

T = TypeVar("T")
Score = float | None


class By(Enum):
    """What scores the replies."""

    likelihood = "likelihood"
    judge = "judge"
    length = "length"


class Ties(Enum):
    """What a pair of equal scores counts."""

    half = "half"
    wrong = "wrong"


@dataclass
class PairsConfig:
    """Which pairs, and how they are counted."""

    path: str = ""
    """File of pairs: JSON Lines, one JSON list or CSV, also gzipped, or Parquet."""
    ties: Ties = Ties.half
    """What a pair of equal scores counts: half a hit, or wrong."""
    n: int | None = option(None, ge=1)
    """Number of pairs, evenly spaced through the file; None = all."""
    min_items: int = option(10, ge=1)
    """With fewer pairs there is no figure: the interval of ten still covers half of what is possible."""


@dataclass
class PairAccuracyConfig(PairsConfig):
    """Which pairs, and what decides."""

    by: By = By.likelihood
    """What scores the replies: likelihood under this model, this model as the run's judge, or length (a control)."""
    length_normalised: bool = False
    """Whether a likelihood is the mean log-probability of the reply's tokens, in place of their sum."""


class PairScoring(FileEvaluator):
    """Accuracy over all pairs, and over those of each category, by any scores."""

    config: PairsConfig
    figures = (Figure("accuracy*", better="higher"),)

    def pairs(self, context: EvaluationContext) -> list[Pair]:
        """All pairs; tells what was left out."""
        return human_pairs(context, self.config.path)

    @abstractmethod
    def scores(self, groups: Sequence[AnsweredPrompt], context: EvaluationContext) -> list[dict[str, Score]]:
        """The score of each reply, by its text, for each prompt; None where it has none."""

    def evaluate(self, context: EvaluationContext) -> Iterator[Metric]:
        """``accuracy``, ``accuracy_<category>`` where there are categories, and ``ties``, the share of equal scores."""
        pairs = evenly_spaced(self.pairs(context), self.config.n)
        scored = self._score_pairs(pairs, context)
        known = [(pair.category, o) for pair, both in zip(pairs, scored, strict=True) if (o := self._outcome(*both))]
        context.count(pairs=len(pairs), pairs_left_out=len(pairs) - len(known))
        for category in ("", *dict.fromkeys(pair.category for pair in pairs if pair.category)):
            outcomes = [outcome for of, outcome in known if category in ("", of)]
            ties = outcomes.count("tie") if self.config.ties is Ties.half else 0
            name = f"accuracy_{category}" if category else "accuracy"
            yield self._share(context, name, outcomes.count("hit") + ties / 2, len(outcomes))
        yield self._share(context, "ties", sum(outcome == "tie" for _, outcome in known), len(known))
        yield from self.means(scored, context)

    def unscored(self) -> str | None:
        """The outcome (``hit``, ``tie`` or ``miss``) of a pair with a reply that has no score; None leaves it out."""
        return None

    def means(self, scored: Sequence[tuple[Score, Score]], context: EvaluationContext) -> Iterable[Metric]:
        """Further figures, from the scores of each pair's chosen and rejected reply."""
        return ()

    def _share(self, context: EvaluationContext, name: str, hits: float, n: int) -> Metric:
        if n < self.config.min_items:
            return Metric(context.model, self.name, name, None, None, None, n)
        return Metric(context.model, self.name, name, hits / n, *share_interval(hits, n), n)

    def _score_pairs(self, pairs: Sequence[Pair], context: EvaluationContext) -> list[tuple[Score, Score]]:
        groups = replies_by_prompt(pairs)
        scores = dict(zip(groups, self.scores(list(groups.values()), context), strict=True))
        found = [scores[Prompt.of(pair.messages, self.name).prompt_id] for pair in pairs]
        return [(of[pair.chosen], of[pair.rejected]) for of, pair in zip(found, pairs, strict=True)]

    def _outcome(self, chosen: Score, rejected: Score) -> str | None:
        if chosen is None or rejected is None:
            return self.unscored()
        return "hit" if chosen > rejected else "tie" if chosen == rejected else "miss"


class PairAccuracy(PairScoring):
    """By the scores that the config names."""

    config: PairAccuracyConfig

    def unscored(self) -> str | None:
        """A verdict that cannot be read is a miss."""
        return "miss" if self.config.by is By.judge else None

    def scores(self, groups: Sequence[AnsweredPrompt], context: EvaluationContext) -> list[dict[str, Score]]:
        if self.config.by is By.judge:
            judgements = iter(context.judge(groups) if groups else ())
            return [{c.text: next(judgements).score for c in group.candidates} for group in groups]
        if self.config.by is By.length:
            return [{c.text: float(len(c.text)) for c in group.candidates} for group in groups]
        asked = continuations(groups)
        scores = []
        for request, weighed in zip(asked, context.likelihoods(asked), strict=True):
            over = [len(w.token_ids) if self.config.length_normalised else 1 for w in weighed]
            values = [w.total / k if w.token_ids else None for w, k in zip(weighed, over, strict=True)]
            scores.append(dict(zip(map(str, request.replies), values, strict=True)))
        return scores


def continuations(groups: Sequence[AnsweredPrompt]) -> list[Continuations]:
    """The conversations with their replies, as an engine takes them."""
    return [Continuations(group.prompt.messages, [c.text for c in group.candidates]) for group in groups]


def replies_by_prompt(pairs: Sequence[Pair]) -> dict[str, AnsweredPrompt]:
    """Each prompt once with each of its replies once, by the prompt's id: none is weighed or judged twice.

    Replies stand in the order of their texts, which says nothing of which was preferred.
    """
    prompts: dict[str, Prompt] = {}
    replies: dict[str, set[str]] = {}
    for pair in pairs:
        prompt = Prompt.of(pair.messages, "pairs")
        prompts[prompt.prompt_id] = prompt
        replies.setdefault(prompt.prompt_id, set()).update((pair.chosen, pair.rejected))
    return {
        key: AnsweredPrompt(
            prompt,
            [Candidate.of(prompt, t, k, origin="human", model="human", finish_reason="human")
             for k, t in enumerate(sorted(replies[key]))],
        )
        for key, prompt in prompts.items()
    }  # fmt: skip


def human_pairs(context: EvaluationContext, path: str, booleans_as_text: bool = False) -> list[Pair]:
    """The pairs of a file, or without one of the ranked answers of the data's ``judge_evaluation``.

    Rows that cannot be used are told, those without a preference counted.
    """
    if not path:
        return [
            pair
            for group in context.data.split("judge_evaluation", context.run_seed)
            for pair in ranked_pairs(
                group.prompt.messages, [(c.rank, c.text) for c in group.candidates if c.rank is not None]
            )
        ]
    found = read_pairs(Path(path).expanduser(), booleans_as_text)
    tell_left_out(context, found.left_out)
    if found.undecided:
        context.count(undecided=found.undecided)
    return found.pairs


def evenly_spaced(rows: Sequence[T], n: int | None) -> list[T]:
    """``n`` of the rows, the same each time, from the whole file: files are often sorted by category."""
    if n is None or n >= len(rows):
        return list(rows)
    return [rows[k * len(rows) // n] for k in range(n)]
