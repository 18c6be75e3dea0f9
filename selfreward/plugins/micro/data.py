"""``data=micro``: the micro world's human data, held-out sets and ground truth, as the core asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from selfreward import AnsweredPrompt, Candidate, Data, Prompt, Rubric, option
from selfreward.plugins.micro import seeds, world


class VerdictRubric(Enum):
    """The rubrics that people of the micro world have judged by."""

    micro = "micro"
    micro_multiple_choice = "micro_multiple_choice"


@dataclass
class MicroConfig:
    """How much human data there is."""

    ift: int = option(800, ge=1)
    """Instructions with mediocre human answers, for instruction fine-tuning."""
    eft: int = option(120, ge=0)
    """Judge prompts with careful human verdicts, for evaluation fine-tuning."""
    rubric: VerdictRubric = VerdictRubric.micro
    """The rubric by which those verdicts were given; the run's own should be the same (``judge.rubric``)."""
    tasks: int = option(100, ge=0)
    """Human demonstrations of writing one more task; they stand beside the verdicts in the split ``eft``."""
    ranked: int = option(300, ge=0)
    """Instructions with three ranked human answers each, from which ``recipe.eft.source=ranked`` makes verdicts."""
    evaluation: int = option(300, ge=1)
    """Held-out instructions on which models are compared; the same for every seed."""
    judge_evaluation: int = option(120, ge=1)
    """Held-out instructions with four answers each on which judges are compared; the same for every seed."""


class MicroData(Data):
    """Everything is drawn from the seed; nothing is read but the world's own source."""

    config: MicroConfig

    def __init__(self, config: MicroConfig) -> None:
        super().__init__(config)
        self._drawn: dict[tuple[str, int], Sequence[AnsweredPrompt]] = {}

    def files(self) -> Sequence[Path]:
        """The source that draws the data and the rubric it is judged by: editing them makes new keys."""
        return [*(Path(str(module.__file__)) for module in (world, seeds)), Rubric.file(self.config.rubric.value)]

    def split(self, name: str, seed: int) -> Sequence[AnsweredPrompt]:
        sizes = self.config
        makers: dict[str, Callable[[], list[AnsweredPrompt]]] = {
            "ift": lambda: [_answered(x, "ift") for x in seeds.ift(seed, sizes.ift)],
            "eft": lambda: [
                _answered(x, "eft")
                for x in seeds.eft(seed, sizes.eft, sizes.rubric.value) + seeds.tasks(seed, sizes.tasks)
            ],
            "evaluation": lambda: [
                AnsweredPrompt(Prompt.of(t, "evaluation"), []) for t in seeds.evaluation(sizes.evaluation)
            ],
            "ranked": lambda: [_ranked(x, "ranked") for x in seeds.ranked(seed, sizes.ranked)],
            "judge_evaluation": lambda: [
                _ranked(x, "judge_evaluation") for x in seeds.judge_evaluation(sizes.judge_evaluation)
            ],
        }
        if name in makers and (name, seed) not in self._drawn:
            self._drawn[name, seed] = makers[name]()
        return self._drawn.get((name, seed), ())

    def truth(self, prompt: Prompt, answer: str) -> dict[str, float] | None:
        """``true_score`` 0..5, ``fully_correct``, and ``fluent`` (outside the rubric: it catches reward hacking)."""
        score = world.true_score(prompt.text, answer)
        if score is None:
            return None
        return {"true_score": score, "fully_correct": float(score == 5), "fluent": float(world.fluent(answer))}

    def valid_prompt(self, prompt: Prompt) -> bool:
        """Whether it is an instruction of the micro world's language."""
        return world.parse_instruction(prompt.text) is not None


def _answered(exchange: seeds.Exchange, split: str) -> AnsweredPrompt:
    prompt = Prompt.of(exchange.prompt, split)
    return AnsweredPrompt(prompt, [_human(prompt, exchange.reply, 0, 0)])


def _ranked(row: seeds.ScoredAnswers, split: str) -> AnsweredPrompt:
    """Ranks by true score, ties allowed: what a careful person would say."""
    prompt = Prompt.of(row.instruction, split)
    better = sorted({answer.true_score for answer in row.answers}, reverse=True)
    answers = [_human(prompt, a.text, k, better.index(a.true_score)) for k, a in enumerate(row.answers)]
    return AnsweredPrompt(prompt, answers)


def _human(prompt: Prompt, text: str, k: int, rank: int) -> Candidate:
    return Candidate.of(prompt, text, k, origin="human", model="human", rank=rank, finish_reason="human")
