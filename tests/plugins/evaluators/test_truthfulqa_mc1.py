"""TruthfulQA MC1: the real file, and the choice against Hugging Face in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from selfreward import Metric, Plugin
from selfreward.formats import files
from selfreward.plugins.evaluators.truthfulqa_mc1 import (
    PRIMER,
    Form,
    TruthfulQaConfig,
    TruthfulQaMc1,
    parse_question,
)
from selfreward.testing import ScriptedContext, check_plugin

WORDS = ["Rex", "the", "fox", "runs", "near", "a", "river", "and", "sleeps", "under", "seven", "quiet", "lamps"]


def questions(count: int) -> list[dict[str, Any]]:
    """Questions of two to four choices, the true one at different places."""
    rows = []
    for k in range(count):
        choices = [" ".join(WORDS[(k + 3 * c) % 9 :][: 1 + (k + c) % 4]) + f" {c}." for c in range(2 + k % 3)]
        rows.append({"question": f"Who is {WORDS[k % 13]}?", "mc1_targets": dict.fromkeys(choices, 0)})
        rows[-1]["mc1_targets"][choices[k % len(choices)]] = 1
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


def measured(context: Any, **options: Any) -> dict[str, Metric]:
    return {metric.metric: metric for metric in TruthfulQaMc1(TruthfulQaConfig(**options)).evaluate(context)}


def test_the_published_file(shared_data: Path) -> None:
    found, left_out = files.read(shared_data / "truthfulqa/mc_task_v1.json.gz", parse_question)
    assert (len(found), left_out) == (817, [])
    assert {len(question.choices) for question in found} == set(range(2, 14))
    # a model that knows nothing: every choice is as likely as its bytes are many, so the shortest wins
    path = str(shared_data / "truthfulqa/mc_task_v1.json.gz")
    metrics = measured(ScriptedContext(likely=lambda reply: -1.0), path=path)
    shortest = sum(min(map(len, map(str.encode, q.choices[1:]))) > len(q.choices[0].encode()) for q in found)
    assert (metrics["accuracy"].value, metrics["accuracy"].n) == (shortest / 817, 817)
    assert round(100 * metrics["chance"].value, 1) == 22.3


@pytest.mark.parametrize("form", list(Form))
def test_the_likeliest_choice_is_that_of_hugging_face_in_float64(
    tmp_path: Path, measuring: Callable[..., Any], form: Form
) -> None:
    rows, context = questions(12), measuring()
    found = measured(context, path=write(tmp_path / "mc.json", rows), form=form)
    model = AutoModelForCausalLM.from_pretrained(context.ref.path, dtype=torch.float64)
    chat, hits = context.ref.chat(), 0
    for row in rows:
        asked = row["question"] if form is Form.chat else PRIMER.replace("{question}", row["question"])
        prompt = chat.encode([{"role": "user", "content": asked}])
        totals = {}
        for choice in row["mc1_targets"]:
            ids = chat.encode_reply(choice)[:-1]
            with torch.no_grad():
                logprobs = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
            totals[choice] = sum(logprobs[len(prompt) + k - 1, token].item() for k, token in enumerate(ids))
        hits += row["mc1_targets"][max(totals, key=lambda choice: totals[choice])]
    assert 0 < hits < len(rows), "the rows are to tell the two apart"
    assert (found["accuracy"].value, found["accuracy"].n) == (pytest.approx(hits / len(rows)), 12)


def test_a_tie_is_wrong(tmp_path: Path) -> None:
    path = write(tmp_path / "mc.json", questions(12))
    found = measured(ScriptedContext(likely=lambda reply: 0.0), path=path)
    assert found["accuracy"].value == 0.0
    assert found["accuracy"].high > 0


def test_too_few_questions_give_no_number(tmp_path: Path) -> None:
    path = write(tmp_path / "mc.json", questions(12))
    found = measured(ScriptedContext(), path=path, n=9)
    assert [(m.value, m.low, m.high, m.n) for m in found.values()] == [(None, None, None, 9)] * 2


def test_a_question_that_does_not_fit_is_left_out(tmp_path: Path, measuring: Callable[..., Any]) -> None:
    rows, context = questions(11), measuring()
    rows[3]["question"] = "fox " * 3000
    found = measured(context, path=write(tmp_path / "mc.json", rows))
    assert found["accuracy"].n == 10
    assert context.counters["questions_left_out"] == 1


@given(
    choices=st.lists(st.text("abc ,.", min_size=1).filter(str.strip), min_size=2, max_size=6, unique=True),
    data=st.data(),
)
def test_both_spellings_put_the_true_choice_first(choices: list[str], data: Any) -> None:
    true = data.draw(st.integers(0, len(choices) - 1))
    labels = [int(k == true) for k in range(len(choices))]
    one = parse_question({"question": "?", "mc1_targets": dict(zip(choices, labels, strict=True))})
    other = parse_question({"question": "?", "mc1_targets": {"choices": choices, "labels": labels}})
    assert one == other
    assert one.choices[0] == choices[true]
    assert sorted(one.choices) == sorted(choices)


@pytest.mark.parametrize("targets", [{}, {"a": 1}, {"a": 1, "b": 1}, {"a": 0, "b": 0}, {"a": 1, " ": 0}, ["a"], None])
def test_a_question_without_one_truth_is_left_out(tmp_path: Path, measuring: Callable[..., Any], targets: Any) -> None:
    context = measuring()
    rows = [*questions(1), {"question": "?", "mc1_targets": targets}]
    assert measured(context, path=write(tmp_path / "mc.json", rows))["accuracy"].n == 1
    assert "item 2" in (context.folder / "left_out.txt").read_text()


def test_problems_and_registration(tmp_path: Path) -> None:
    assert "path is not set" in next(TruthfulQaConfig().problems())
    for name, why in (("none.json", "no such file"), ("TruthfulQA.csv", "give mc_task.json")):
        stage = TruthfulQaMc1(TruthfulQaConfig(path=str(tmp_path / name)))
        assert why in stage.problems(ScriptedContext())[0]
        assert stage.files(ScriptedContext()) == [tmp_path / name]
    target = "selfreward.plugins.evaluators.truthfulqa_mc1:TruthfulQaMc1"
    check_plugin(Plugin("truthfulqa_mc1", target, TruthfulQaConfig))
