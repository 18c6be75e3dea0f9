"""The control that prefers the longer answer, checked against published pairs."""

import json
from pathlib import Path

import pytest

from selfreward import AnsweredPrompt, Candidate, Prompt
from selfreward.plugins.judges.length import Length, LengthConfig
from selfreward.testing import ScriptedContext, check_judge

HHH = Path(__file__).parents[4] / "shared" / "data" / "hhh_alignment" / "derived_pairs.jsonl"


def scores(*texts):
    prompt = Prompt.of("Describe a fox.", source="ift")
    answers = [Candidate.of(prompt, text, k, origin="M1", model="M1") for k, text in enumerate(texts)]
    judged = Length(LengthConfig()).score([AnsweredPrompt(prompt, answers)], ScriptedContext())
    return [judgement.score for judgement in judged]


def test_it_keeps_the_contract_of_judges():
    check_judge(Length(LengthConfig()))


def test_the_score_is_the_number_of_characters():
    assert scores("", "a fox", "狐狸 🦊") == [0.0, 5.0, 4.0]


@pytest.mark.skipif(not HHH.exists(), reason="needs ../shared/data/hhh_alignment")
def test_on_hhh_the_longer_answer_wins_as_often_as_published():
    won: dict[str, list[float]] = {}
    for line in HHH.read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        chosen, rejected = scores(pair["chosen"], pair["rejected"])
        won.setdefault(pair["source"], []).append((chosen > rejected) + (chosen == rejected) / 2)
    shares = {source: round(100 * sum(wins) / len(wins), 1) for source, wins in won.items()}
    assert shares == {"helpful": 70.3, "harmless": 62.1, "honest": 63.9, "other": 54.7}
