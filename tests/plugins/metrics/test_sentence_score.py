"""What the metrics of one library share: it is missed before any work, and loaded late."""

import sys

import pytest

from selfreward.plugins.metrics.bleu import Bleu, BleuConfig
from selfreward.plugins.metrics.chrf import Chrf, ChrfConfig
from selfreward.testing import ScriptedContext


@pytest.mark.parametrize("metric", [Bleu(BleuConfig()), Chrf(ChrfConfig())], ids=["bleu", "chrf"])
def test_the_library_is_missed_with_its_mend(metric, monkeypatch):
    assert metric.problems(ScriptedContext()) == []
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    assert metric.problems(ScriptedContext()) == ["it needs sacrebleu: pip install 'selfreward[metrics]'"]


def test_the_library_is_imported_late(python):
    done = python("-c", "import sys, selfreward.plugins.metrics.bleu as b; b.Bleu(b.BleuConfig()); print(*sys.modules)")
    assert done.code == 0
    assert "selfreward.plugins.metrics.bleu" in done.out.split()
    assert "sacrebleu" not in done.out.split()
