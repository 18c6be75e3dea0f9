"""A trained reward model as the judge: score = r(x, y), one number for prompt and answer together.

r(x, y) = w · h(x, y, end of turn) − shift: a linear head on the last hidden state of a language model that was trained
on comparisons (Bradley-Terry), made 0 on average over reference outputs. The difference of two scores is the log-odds
that the one answer is preferred to the other; a single score means little.
Source: arXiv:1909.08593 §2, arXiv:2009.01325 §3.4, arXiv:2203.02155 §3.5.

Answers are read as text, in the reward model's own tokens and template, since it may be anybody's. Every answer is read
with the end of its turn: the head was trained at that token alone and says nothing of use at another. So an answer that
was cut off at the limit is scored as if it ended there, which only its sense gives away; selectors never pair it, and
``optimizer=ppo`` takes ``missing_eos`` instead of its score. An empty answer is one like others. What does not fit into
the reward model's context has no score.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfreward import AnsweredPrompt, Continuations, FileContext, Judge, Judgement, RoleKind, StageContext, role


@dataclass
class RewardModelConfig:
    """Options of ``judge=reward_model``."""

    model: str = role("reward", kind=RoleKind.reward)
    """Role of the reward model: reward (the newest), the name of the round that made it, or a folder."""


class RewardModel(Judge):
    """Asks the reward model about every answer."""

    uses_model = True
    uses_rewards = True
    writes_verdicts = False
    config: RewardModelConfig

    def problems(self, context: FileContext) -> list[str]:
        """A folder that holds no reward model, or one whose tokenizer does not fit it."""
        folder = Path(self.config.model)
        return list(_folder_problems(folder)) if folder.is_dir() else []

    def score(self, answered: Sequence[AnsweredPrompt], context: StageContext) -> Iterator[Judgement]:
        """One judgement per candidate; all of them are asked about in one call, which sorts them by length."""
        asked = [
            Continuations(group.prompt.messages, [candidate.text for candidate in group.candidates])
            for group in answered
        ]
        for group, rewards in zip(answered, context.rewards(asked), strict=True):
            for candidate, reward in zip(group.candidates, rewards, strict=True):
                yield Judgement(candidate.candidate_id, "reward_model", context.model, "-", [reward], reward, [""])


def _folder_problems(folder: Path) -> Iterator[str]:
    where = f"judge.model={folder}"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        yield f"{where}: its config.json cannot be read ({problem}); name the folder of a reward model"
        return
    names = config.get("architectures") or []
    if not any(name.endswith("ForSequenceClassification") for name in names):
        yield (
            f"{where}: it holds {', '.join(names) or 'no architecture'} and no ...ForSequenceClassification; name the "
            "folder of a reward model, or use judge=llm_cot for a language model"
        )
        return
    rows, known = config.get("text_config", config).get("vocab_size"), _tokens(folder)
    if rows and known > rows:
        yield (
            f"{where}: its tokenizer has {known} tokens and the model's vocab_size is {rows}: give the folder the "
            f"tokenizer that it was trained with, or train it again after resize_token_embeddings({known})"
        )


def _tokens(folder: Path) -> int:
    """Tokens of a folder's tokenizer, 0 where it has none in the fast format."""
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    return Tokenizer.from_file(str(file)).get_vocab_size(with_added_tokens=True) if file.is_file() else 0
