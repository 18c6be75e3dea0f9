"""Held-out loss: how well the model predicts text that people wrote. What alignment costs shows as its rise.

::

    nats per token = -Σ log p(token) / Σ tokens        bits per byte = -Σ log p(token) / (ln 2 · Σ UTF-8 bytes)

The documents are those of a file, or the best human answers of one of the data's splits; the sums run over all of
them. Bits per byte compare models with different tokenizers. A document is weighed as the model's reply: to its own
prompt, or to ``instruction`` where it comes from a file; the end of the turn does not count. So the figures are for
comparing M0, M1, M2, ...; perplexities in papers are of bare text without a chat template (``lm_eval``).

Windows: a document of more than ``window`` characters is halved at the white space nearest its middle, and so are its
halves, until each part is short enough and fits into the context. Parts are weighed apart: a part does not see what
went before it. As long as the window fits, the parts depend on the text alone, so every model weighs the same ones.

Interval: documents are drawn, and R = Σx / Σm is a ratio estimate, with variance n/(n-1) · Σ(x - R·m)² / (Σm)².
Source: the "alignment tax" of arXiv:2112.00861 §1.1; Cochran, Sampling Techniques, 3rd ed., §6.3 for the interval.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfreward import Continuations, EvaluationContext, Figure, Message, Metric, UserError, option
from selfreward.formats import files
from selfreward.formats.cells import asked, text_of
from selfreward.plugins.evaluators.file_evaluator import FileEvaluator
from selfreward.plugins.evaluators.intervals import Z
from selfreward.plugins.evaluators.pair_accuracy import evenly_spaced


@dataclass
class LmLossConfig:
    """Which text, and how it is cut."""

    path: str = ""
    """Texts: ``.txt`` (a blank line ends a document) or rows (.jsonl, .csv, ...), also as .gz; empty: human answers."""
    column: str = "text"
    """Column of the text in a file of rows."""
    split: str = "judge_evaluation"
    """Split of the data whose best human answers are weighed where there is no ``path``."""
    instruction: str = "Write a text."
    """The user's turn to which a text of a file is weighed as the reply."""
    window: int = option(2000, ge=1)
    """Characters of text that are weighed at once, at most; longer documents are cut."""
    n: int | None = option(None, ge=1)
    """Number of documents, evenly spaced through the file; None = all."""
    min_items: int = option(10, ge=2)
    """With fewer documents there is no figure: the spread of a handful says little of its own error."""


@dataclass(frozen=True)
class Document:
    """A text, and the conversation to which it is weighed as the reply."""

    messages: list[Message]
    text: str


@dataclass
class _Sum:
    """What is known of one document, summed over its parts."""

    nats: float = 0.0
    tokens: int = 0
    bytes: int = 0


class LmLoss(FileEvaluator):
    """Nats per token and bits per byte."""

    config: LmLossConfig
    name = "lm_loss"
    figures = (Figure("nats_per_token", better="lower"), Figure("bits_per_byte", better="lower"))

    def evaluate(self, context: EvaluationContext) -> Iterator[Metric]:
        """``nats_per_token`` and ``bits_per_byte`` over the documents."""
        documents = evenly_spaced(self._documents(context), self.config.n)
        sums = [known for known in self._weigh(documents, context) if known.tokens]
        context.count(documents=len(sums))
        bits = [known.nats / math.log(2) for known in sums]
        yield self._metric(context, "nats_per_token", [s.nats for s in sums], [s.tokens for s in sums])
        yield self._metric(context, "bits_per_byte", bits, [s.bytes for s in sums])

    def _metric(self, context: EvaluationContext, name: str, x: Sequence[float], m: Sequence[int]) -> Metric:
        figures = ratio(x, m) if len(x) >= self.config.min_items else (None, None, None)
        return Metric(context.model, self.name, name, *figures, len(x))

    def _documents(self, context: EvaluationContext) -> list[Document]:
        if self.config.path:
            return [Document(asked(self.config.instruction), found) for found in self._texts(context)]
        answered = [g for g in context.data.split(self.config.split, context.run_seed) if g.candidates]
        best = [(g.prompt.messages, min(g.candidates, key=lambda c: c.rank or 0).text.strip()) for g in answered]
        return [Document(messages, found) for messages, found in best if found]

    def _texts(self, context: EvaluationContext) -> list[str]:
        if ".txt" in self.path.suffixes:
            return plain_documents(self.path)
        return self.read(context, lambda row: text_of(row, self.config.column).strip())

    def _weigh(self, documents: Sequence[Document], context: EvaluationContext) -> list[_Sum]:
        """The sums of each document; a part that does not fit into the context is halved and asked for again."""
        sums = [_Sum() for _ in documents]
        parts = [(k, part) for k, d in enumerate(documents) for part in windows(d.text, self.config.window)]
        while parts:
            requests = [Continuations(documents[k].messages, [part], ended=False) for k, part in parts]
            smaller = []
            for (k, part), [found] in zip(parts, context.likelihoods(requests), strict=True):
                if found.token_ids:
                    sums[k].nats -= found.total
                    sums[k].tokens += len(found.token_ids)
                    sums[k].bytes += len(part.encode())
                elif len(part) > 1:
                    smaller += [(k, half) for half in halves(part)]
            # the context counts what does not fit as lost; what is halved is not
            context.count(too_long=-len(smaller) / 2, parts=len(parts) - len(smaller) / 2)
            parts = smaller
        return sums


def plain_documents(path: Path) -> list[str]:
    """The documents of a ``.txt`` or ``.txt.gz`` file, which blank lines separate.

    Raises:
        UserError: it is not readable, not UTF-8, or empty.
    """
    try:
        with files.opened(path) as file:
            content = file.read().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as problem:
        raise UserError(f"{path}: not readable as text: {problem}") from None
    found = [part.strip() for part in re.split(r"\n\s*\n", content)]
    if not any(found):
        raise UserError(f"{path}: there is no text in it")
    return [part for part in found if part]


def windows(text: str, limit: int) -> Iterator[str]:
    """The text, halved until no part has more than ``limit`` characters; together the parts are the text."""
    if len(text) <= limit:
        yield text
    else:
        for half in halves(text):
            yield from windows(half, limit)


def halves(text: str) -> tuple[str, str]:
    """A text of two characters or more, cut before the white space nearest its middle, or there if it has none."""
    middle = len(text) // 2
    gaps = (found.start() for found in re.finditer(r"\s+", text) if found.start())
    cut = min(gaps, key=lambda at: abs(at - middle), default=middle)
    return text[:cut], text[cut:]


def ratio(x: Sequence[float], m: Sequence[int]) -> tuple[float, float, float]:
    """Σx / Σm and its 95 % interval, for two or more units that were drawn."""
    n, total = len(x), sum(m)
    value = sum(x) / total
    spread = sum((a - value * b) ** 2 for a, b in zip(x, m, strict=True))
    half = Z * math.sqrt(n / (n - 1) * spread) / total
    return value, value - half, value + half
