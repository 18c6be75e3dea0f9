"""One iteration of self-rewarding as people write it by hand: ``model.generate`` and TRL's DPO trainer.

Written twice. :class:`OneByOne` is the short way: one conversation, one reply at a time. :class:`Batched` is the
careful one: rows sorted by length, padded on the left, 64 prompts at once, all samples of a prompt by
``num_return_sequences``. The texts (eight tasks to go on from, the rubric) and how replies are read are those of
selfreward, so that all do the same work; none of it takes time. Both train with TRL's defaults, but for what would make
it other work.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from selfreward import Message, Rubric
from selfreward.plugins.prompt_generators.self_instruct import ask, parse_reply

Pair = dict[str, list[Message]]
"""``prompt``, ``chosen`` and ``rejected``, as TRL takes them."""
Settings = dict[str, Any]
"""``temperature``, ``top_p`` and ``max_new_tokens`` of a kind of reply."""


class OneByOne:
    """The model, and ``model.generate`` for every single reply."""

    def __init__(self, model: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(model, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(model).eval()

    def replies(self, asked: Sequence[str], n: int, how: Settings, prefix: str = "") -> list[list[str]]:
        """``n`` replies to each user turn, made to start with ``prefix``."""
        texts = [self._prompt(text) + prefix for text in asked]
        return [[self._generate([text], 1, how)[0] for _ in range(n)] for text in texts]

    def _prompt(self, text: str) -> str:
        turns = [{"role": "user", "content": text}]
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def _generate(self, texts: list[str], n: int, how: Settings) -> list[str]:
        import torch

        given = self.tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
        ids, mask = given["input_ids"], given["attention_mask"]
        with torch.inference_mode():
            out = self.model.generate(
                ids, attention_mask=mask, do_sample=True, top_k=0, num_return_sequences=n, **how
            )  # fmt: skip
        new: list[str] = self.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        return new


class Batched(OneByOne):
    """The same, many rows at once."""

    batch = 64

    def replies(self, asked: Sequence[str], n: int, how: Settings, prefix: str = "") -> list[list[str]]:
        """``n`` replies to each user turn, made to start with ``prefix``."""
        texts = [self._prompt(text) + prefix for text in asked]
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        found: dict[int, list[str]] = {}
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            new = self._generate([texts[row] for row in rows], n, how)
            found |= {row: new[place * n : (place + 1) * n] for place, row in enumerate(rows)}
        return [found[row] for row in range(len(texts))]


@dataclass
class Iteration:
    """Prompts, answers, verdicts and pairs of one model."""

    script: OneByOne
    seeds: Sequence[str]
    rubric: Rubric
    prompts: int
    answers: int
    votes: int
    new_task: Settings
    answer: Settings
    review: Settings

    def run(self) -> list[Pair]:
        """The paper's §2.2 and §2.3 in their order."""
        tasks = self.write_tasks()
        answers = self.script.replies(tasks, self.answers, self.answer)
        scores = self.judge(tasks, answers)
        return list(best_and_worst(tasks, answers, scores))

    def write_tasks(self) -> list[str]:
        """New tasks, none twice."""
        rng, found = random.Random(0), dict[str, None]()
        while (missing := self.prompts - len(found)) > 0:
            asked = [ask(rng.sample(self.seeds, 8))[0]["content"] for _ in range(missing)]
            for [reply] in self.script.replies(asked, 1, self.new_task):
                if (task := parse_reply(reply)) and task not in self.seeds:
                    found[task] = None
        return list(found)

    def judge(self, tasks: Sequence[str], answers: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """The mean of the readable votes of every answer."""
        asked = [
            self.rubric.render(instruction=task, response=answer)
            for task, group in zip(tasks, answers, strict=True)
            for answer in group
        ]
        reviews = iter(self.script.replies(asked, self.votes, self.review, self.rubric.reply_prefix))
        return [[self._mean(next(reviews)) for _ in group] for group in answers]

    def _mean(self, reviews: Sequence[str]) -> float | None:
        votes = [vote for vote in map(self.rubric.read, reviews) if vote is not None]
        return fmean(votes) if votes else None


def best_and_worst(
    tasks: Sequence[str], answers: Sequence[Sequence[str]], scores: Sequence[Sequence[float | None]]
) -> Iterator[Pair]:
    """At most one pair per task."""
    for task, group, marks in zip(tasks, answers, scores, strict=True):
        ranked = sorted(
            ((mark, answer) for mark, answer in zip(marks, group, strict=True) if mark is not None and answer),
            key=lambda one: one[0],
        )
        if ranked and ranked[0][0] < ranked[-1][0]:
            yield {
                "prompt": [{"role": "user", "content": task}],
                "chosen": [{"role": "assistant", "content": ranked[-1][1]}],
                "rejected": [{"role": "assistant", "content": ranked[0][1]}],
            }


def train(model: str, pairs: Sequence[Pair], out: Path, **settings: Any) -> None:
    """TRL's DPO trainer as it comes; ``settings`` are those without which it would be other work."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    on_a_cpu: dict[str, Any] = {"use_cpu": True, "bf16": False, "dataloader_pin_memory": False}
    arguments = DPOConfig(output_dir=str(out), report_to="none", disable_tqdm=True, **(on_a_cpu | settings))
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=arguments,
        train_dataset=Dataset.from_list(list(pairs)),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.train()
    trainer.save_model(str(out))
