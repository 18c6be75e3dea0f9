"""Self-Instruct: the model is shown some tasks and writes one more.

8 examples: 6 seed prompts and 2 that were written earlier in this stage, in random order; while fewer than 2 were
written, seeds stand in. Sampled at T 0.6, top-p 0.9.
Source: arXiv:2401.10020 §2.2 (step 1) and §3.1.3, after arXiv:2212.10560 §2.2.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from selfreward import Message, Prompt, PromptGenerator, Request, Sampling, StageContext, UserError, option, role


@dataclass
class SelfInstructConfig:
    """Options of ``prompt_generator=self_instruct``."""

    n: int = option(400, ge=1)
    """Prompts wanted."""
    model: str = role("policy")
    """Role of the model that writes them."""
    shots_seed: int = option(6, ge=1)
    """Examples drawn from the seed prompts."""
    shots_generated: int = option(2, ge=0)
    """Examples drawn from the prompts written earlier in this stage."""
    temperature: float = option(0.6, ge=0)
    """Sampling temperature."""
    top_p: float = option(0.9, gt=0, le=1)
    """Nucleus: the smallest set of tokens with this much probability is sampled from."""
    max_new_tokens: int = option(64, ge=1)
    """Tokens a prompt may have; longer ones are thrown away, not cut."""
    attempts: int = option(6, ge=1)
    """Rows tried per wanted prompt, at most."""


class SelfInstruct(PromptGenerator):
    """Asks the model for one more task like these."""

    uses_model = True
    config: SelfInstructConfig

    def propose(self, rows: range, earlier: Sequence[Prompt], context: StageContext) -> list[Prompt | None]:
        """One new prompt per row, or None where the reply holds none; the whole slice is one call of the model.

        Raises:
            UserError: the data has no seed prompts.
        """
        seeds = [answered.prompt for answered in context.data.split("ift", context.run_seed)]
        if not seeds:
            raise UserError("prompt_generator=self_instruct needs seed prompts, but the data's split 'ift' has none")
        how = Sampling(self.config.temperature, self.config.top_p, max_new_tokens=self.config.max_new_tokens)
        shown = [self._examples(seeds, earlier, random.Random(context.seed("draw", row))) for row in rows]
        asked = [
            Request(ask([example.text for example in examples]), how, context.seed("write", row))
            for row, examples in zip(rows, shown, strict=True)
        ]
        replies = [reply for [reply] in context.generate(asked)]
        texts = [None if reply.finish_reason == "length" else parse_reply(reply.text) for reply in replies]
        cut_off = sum(reply.finish_reason == "length" for reply in replies)
        context.count(cut_off=cut_off, empty=texts.count(None) - cut_off)
        return [
            None if text is None else Prompt.of(text, context.model, [example.prompt_id for example in examples])
            for text, examples in zip(texts, shown, strict=True)
        ]

    def _examples(self, seeds: Sequence[Prompt], earlier: Sequence[Prompt], rng: random.Random) -> list[Prompt]:
        generated = rng.sample(earlier, min(self.config.shots_generated, len(earlier)))
        wanted = self.config.shots_seed + self.config.shots_generated - len(generated)
        examples = generated + rng.sample(seeds, min(wanted, len(seeds)))
        rng.shuffle(examples)
        return examples


def ask(tasks: Sequence[str]) -> list[Message]:
    """One user turn: the tasks, numbered, each on one line, and the wish for one more."""
    lines = [f"Task {number}: {' '.join(task.split())}" for number, task in enumerate(tasks, 1)]
    text = "\n".join(["Come up with one more task like these.", *lines, f"Write Task {len(tasks) + 1} only."])
    return [{"role": "user", "content": text}]


_LABEL = re.compile(
    r"\A(?:task\s*:|task\s*\#?\d+\s*(?:[.):–—-]|\Z)|\(?\d{1,3}[.):](?=\s|\Z)|[-+*•](?=\s|\Z))\s*", re.IGNORECASE
)
_STARS = re.compile(r"(?<![\w*])(\*{1,3})(?=[^\s*])(.+?)(?<=[^\s*])\1(?![\w*])")
_MARKS = re.compile(r"\A(?:[#>]+(?:\s+|\Z)|\*\*+\s*)")
_QUOTES = ('""', "''", "``", "“”", "‘’", "«»")


def parse_reply(text: str) -> str | None:
    """The task in a model's reply, or None: its first line with content, without label and decoration.

    ::

        reply      = { empty | lead-in }, task, anything
        empty      = a line in which no letter or digit is left
        lead-in    = a line without a label that ends in ":", before a line with content ("Sure, here is one:")
        task       = a line with content; of a list that is its first item
        label      = "Task 9:" | "Task 9." | "Task 9 -" | "Task:" | "9." | "9)" | "(9)" | "9:" | "-" | "+" | "*" | "•"
        decoration = stars around the line or a part of it (bold, italics); "#", ">" or "**" before it;
                     a pair of quotation marks around the line with none inside

    Labels and decoration may be nested in any order. White space becomes single spaces. What follows the task (more
    tasks, a solution) is dropped.
    """
    lines = [_undecorated(line) for line in text.splitlines()]
    lines = [line for line in lines if any(map(str.isalnum, _without_label(line)))]
    while len(lines) > 1 and lines[0].endswith(":") and not _LABEL.match(lines[0]):
        del lines[0]
    return _without_label(lines[0]) if lines else None


def _without_label(line: str) -> str:
    while (shorter := _undecorated(_LABEL.sub("", line))) != line:
        line = shorter
    return line


def _undecorated(line: str) -> str:
    while (shorter := _outermost_removed(line)) != line:
        line = shorter
    return line


def _outermost_removed(line: str) -> str:
    line = _MARKS.sub("", _STARS.sub(r"\2", " ".join(line.split())))
    quoted = len(line) > 1 and line[0] + line[-1] in _QUOTES and not {line[0], line[-1]} & set(line[1:-1])
    return line[1:-1] if quoted else line
