"""What ``judge=metric`` adds up."""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.metrics.bleu import Bleu
from selfreward.plugins.metrics.chrf import Chrf
from selfreward.plugins.metrics.exact_match import ExactMatch
from selfreward.plugins.metrics.length import Length
from selfreward.plugins.metrics.rouge import Rouge1, Rouge2, RougeL


@hookimpl
def selfreward_metrics() -> list[Plugin]:
    """The built-in metrics."""
    return [
        Plugin.of("rouge_1", Rouge1, "Lin 2004"),
        Plugin.of("rouge_2", Rouge2, "Lin 2004"),
        Plugin.of("rouge_l", RougeL, "Lin 2004"),
        Plugin.of("bleu", Bleu, "Papineni et al. 2002"),
        Plugin.of("chrf", Chrf, "Popović 2015"),
        Plugin.of("exact_match", ExactMatch, "arXiv:1606.05250 §6.1"),
        Plugin.of("length", Length),
    ]
