"""AlpacaEval: the package's files and order, its arithmetic, a scripted and a real judge."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfreward import Metric, Request, UserError
from selfreward.core.contracts.options import cross_problems, option_docs
from selfreward.plugins.evaluators.alpaca_eval import AlpacaEval, AlpacaEvalConfig, is_switched


def write(path: Path, rows: list[Any]) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


@pytest.fixture
def instructions(tmp_path: Path) -> str:
    rows = [
        {"instruction": f"Task {k}.", "output": f"theirs {k}!", "generator": "davinci", "dataset": "helpful_base"}
        for k in range(1, 7)
    ]
    return write(tmp_path / "alpaca_eval.json", rows)


def answering(judged: Callable[[str, bool], str]) -> Callable[[Request], str]:
    """Answers ``mine 1`` to ``Task 1.``; ``judged(text, mine_first)`` speaks for the judge."""

    def reply(request: Request) -> str:
        asked = request.messages[-1]["content"]
        if asked.startswith("Task"):
            return f"mine {asked[5]}"
        return judged(asked, asked.index("mine ") < asked.index("theirs "))

    return reply


def measured(found: Any) -> dict[str, Metric]:
    metrics = list(found)
    assert {(m.model, m.evaluator) for m in metrics} <= {("M1", "alpaca_eval")}
    return {m.metric.removeprefix("alpaca_eval_"): m for m in metrics}


def test_the_files_and_the_judges_verdicts(instructions: str, context: Callable[..., Any], tmp_path: Path) -> None:
    def judged(text: str, mine_first: bool) -> str:  # the model wins 1 and 2, ties 3, loses 4 and 5; 6 is unreadable
        number = int(text.split("Task ")[1][0])
        return {3: "[[C]]", 6: "?"}.get(number, f"[[{'AB'[(number < 3) != mine_first]}]]")

    asked = context(reply=answering(judged), folder=tmp_path)
    metrics = measured(AlpacaEval(AlpacaEvalConfig(path=instructions)).evaluate(asked))
    assert [metrics[name].value for name in ("win", "tie", "lose", "win_rate")] == [0.4, 0.2, 0.4, 0.5]
    assert metrics["standard_error"].value == pytest.approx(np.std([1, 1, 0.5, 0, 0], ddof=1) / math.sqrt(5))
    assert (metrics["discrete_win_rate"].value, metrics["win_rate"].n) == (0.5, 5)
    assert (metrics["parse_rate"].value, metrics["parse_rate"].n) == (5 / 6, 6)
    assert (metrics["answer_length"].value, metrics["against_length"].value) == (6, 9)
    outputs = json.loads((tmp_path / "outputs.json").read_text())
    assert len(outputs) == 6
    assert outputs[0] == {
        "instruction": "Task 1.",
        "output": "mine 1",
        "generator": "M1",
        "dataset": "helpful_base",
    }
    annotations = json.loads((tmp_path / "annotations.json").read_text())
    assert [row["preference"] for row in annotations] == [2, 2, 1.5, 1, 1, None]
    named = ("output_1", "generator_1", "output_2", "generator_2", "annotator")
    assert [annotations[0][name] for name in named] == ["theirs 1!", "davinci", "mine 1", "M1", "M1 pairwise"]


def test_the_order_is_the_packages_lot(instructions: str, context: Callable[..., Any], tmp_path: Path) -> None:
    orders = {}

    def judged(text: str, mine_first: bool) -> str:
        orders[text.split("Task ")[1][0]] = mine_first
        return "[[A]]"

    asked = context(reply=answering(judged), folder=tmp_path)
    list(AlpacaEval(AlpacaEvalConfig(path=instructions)).evaluate(asked))
    # alpaca_eval 0.6.6: a choice of [False, True], seeded by the column's name, the instruction, the annotator's seed
    lots = {
        str(k): random.Random("is_switched_outputs" + f"Task {k}." + str(0)).choices([False, True], k=1)[0]
        for k in range(1, 7)
    }
    assert orders == lots
    assert len(set(lots.values())) == 2
    many = [is_switched(f"instruction {k}") for k in range(2000)]
    assert 0.45 < np.mean(many) < 0.55


def test_a_judge_that_loves_the_first_place_gains_nothing(context: Callable[..., Any], tmp_path: Path) -> None:
    rows = [{"instruction": f"Task {k:03}.", "output": f"theirs {k}", "generator": "x"} for k in range(400)]
    asked = context(reply=answering(lambda text, mine_first: "[[A]]"), folder=tmp_path)
    asked.reply = lambda request: "[[A]]" if "theirs" in request.messages[-1]["content"] else "mine"
    metrics = measured(AlpacaEval(AlpacaEvalConfig(path=write(tmp_path / "q.json", rows))).evaluate(asked))
    assert metrics["win_rate"].value == np.mean([is_switched(row["instruction"]) for row in rows])
    assert 0.4 < metrics["win_rate"].value < 0.6


def test_the_same_text_is_a_tie_that_nobody_is_asked_about(
    instructions: str, context: Callable[..., Any], tmp_path: Path
) -> None:
    asked = context(reply=lambda request: f"theirs {request.messages[-1]['content'][5]}!", folder=tmp_path)
    metrics = measured(AlpacaEval(AlpacaEvalConfig(path=instructions)).evaluate(asked))
    assert (metrics["tie"].value, metrics["parse_rate"].n, len(asked.requests)) == (1, 0, 6)


def test_another_model_as_baseline_and_another_as_judge(
    instructions: str, context: Callable[..., Any], tmp_path: Path
) -> None:
    other = context(reply=lambda request: f"theirs {request.messages[-1]['content'][5]}", model="M0")
    judge = context(reply=answering(lambda text, mine_first: "[[A]]" if mine_first else "[[B]]"), model="big")
    asked = context(reply=answering(lambda *_: ""), folder=tmp_path, others={"M0": other, "judge": judge})
    config = AlpacaEvalConfig(path=instructions, n=4, against="M0", judge_model="judge", generator="ours")
    metrics = measured(AlpacaEval(config).evaluate(asked))
    assert (metrics["win_rate"].value, metrics["win_rate"].n) == (1, 4)
    assert (len(asked.requests), len(other.requests), len(judge.requests)) == (4, 4, 4)
    row = json.loads((tmp_path / "annotations.json").read_text())[0]
    assert (row["generator_1"], row["generator_2"], row["annotator"]) == ("M0", "ours", "big pairwise")
    gone = AlpacaEvalConfig(path=instructions, against="M7")
    assert list(AlpacaEval(gone).evaluate(context(folder=tmp_path))) == []


def test_without_a_baseline_the_outputs_are_all(context: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"instruction": "Task 1."}\n{"instruction": "Task 2."}\n{"question": "?"}\n')
    asked = context(reply=lambda request: "four", folder=tmp_path)
    metrics = measured(AlpacaEval(AlpacaEvalConfig(path=str(path))).evaluate(asked))
    assert {name: m.value for name, m in metrics.items()} == {"answer_length": 4}
    assert [row["output"] for row in json.loads((tmp_path / "outputs.json").read_text())] == ["four", "four"]
    assert not (tmp_path / "annotations.json").exists()
    assert asked.counted["rows_left_out"] == 1
    assert "q.jsonl:3: 'instruction' is missing" in (tmp_path / "left_out.txt").read_text()


def annotation(preference: Any, k: int = 0, **changes: Any) -> dict[str, Any]:
    row = {"instruction": f"Task {k}.", "output_1": "b" * (10 + k), "generator_1": "davinci", "output_2": "m" * 20}
    return row | {"generator_2": "M1", "annotator": "gpt4", "preference": preference} | changes


def package_figures(preferences: list[float]) -> dict[str, float]:
    """``describe_head2head`` of alpaca_eval 0.6.6 by its definition, in shares instead of percent."""
    known = np.array([1.5 if p == 0 else p for p in preferences if p == 0 or 1 <= p <= 2]) - 1
    wins, ties = (known > 0.5).sum(), (known == 0.5).sum()
    return {
        "win_rate": known.mean(),
        "standard_error": known.std(ddof=1) / math.sqrt(len(known)),
        "discrete_win_rate": (wins + ties / 2) / len(known),
    }


def test_the_packages_annotations(context: Callable[..., Any], tmp_path: Path) -> None:
    rng = random.Random(0)
    preferences = [rng.choice([1, 2, 1.5, 0, 1.97, 1.02, 1.4, math.nan]) for _ in range(60)]
    rows = [annotation(p, k) for k, p in enumerate(preferences)]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows))  # NaN as Python's json and pandas write it
    asked = context(folder=tmp_path)
    metrics = measured(AlpacaEval(AlpacaEvalConfig(annotations=str(path))).evaluate(asked))
    for name, value in package_figures(preferences).items():
        assert metrics[name].value == pytest.approx(value), name
    unread = sum(math.isnan(p) for p in preferences)
    assert (metrics["parse_rate"].value, metrics["win_rate"].n) == (pytest.approx(1 - unread / 60), 60 - unread)
    assert 0 < metrics["lc_win_rate"].low < metrics["lc_win_rate"].value < metrics["lc_win_rate"].high < 1
    assert not asked.requests


def test_annotations_from_the_other_side_and_of_others(context: Callable[..., Any], tmp_path: Path) -> None:
    turned = {"generator_1": "M1", "generator_2": "davinci"}
    rows = [annotation(1.9, 1), annotation(1.2, 2, **turned), annotation(2, 3, generator_2="vicuna")]
    rows += [annotation(3, 4), annotation("2", 5), annotation(None, 6), {"preference": 2}]
    path = write(tmp_path / "annotations.json", rows)
    asked = context(folder=tmp_path)
    metrics = measured(AlpacaEval(AlpacaEvalConfig(annotations=path)).evaluate(asked))
    assert (metrics["win_rate"].value, metrics["win_rate"].n) == (pytest.approx((0.9 + 0.8) / 2), 2)
    assert metrics["answer_length"].value == (20 + 12) / 2  # the turned one's first output is the model's
    assert asked.counted["rows_left_out"] == 4
    told = (tmp_path / "left_out.txt").read_text()
    assert "between 1 and 2, got 3" in told
    assert "compares davinci with vicuna" in told
    known = measured(AlpacaEval(AlpacaEvalConfig(annotations=path, generator="vicuna")).evaluate(asked))
    assert (known["win_rate"].value, known["win_rate"].n) == (None, 1)


def test_self_instructs_user_oriented_tasks(shared_data: Path, context: Callable[..., Any], tmp_path: Path) -> None:
    path = str(shared_data / "self_instruct" / "user_oriented_instructions.jsonl")
    asked = context(folder=tmp_path)
    asked.reply = lambda request: "[[C]]" if "impartial" in request.messages[0]["content"] else "an answer"
    metrics = measured(AlpacaEval(AlpacaEvalConfig(path=path)).evaluate(asked))
    assert (metrics["tie"].value, metrics["tie"].n) == (1, 252)
    assert metrics["against_length"].value > 9  # what people wrote
    first = asked.requests[0].messages[-1]["content"]
    assert first.startswith("The sentence you are given might be too wordy")
    assert first.endswith("please let me know.")  # its input follows the instruction
    assert AlpacaEval(AlpacaEvalConfig(path=path)).problems(asked) == []


def test_problems(instructions: str, context: Callable[..., Any], tmp_path: Path) -> None:
    assert "path=" in next(cross_problems(AlpacaEvalConfig(), "alpaca_eval"))
    clash = AlpacaEvalConfig(path="x", against="M0", reference_outputs="y", annotations="z")
    assert len(list(cross_problems(clash, "alpaca_eval"))) == 2
    assert AlpacaEval(AlpacaEvalConfig(path=instructions)).problems(context()) == []
    single = AlpacaEval(AlpacaEvalConfig(path=instructions, rubric="additive"))
    assert "scores one answer" in single.problems(context())[0]
    foreign = write(tmp_path / "outputs.json", [{"instruction": "Other.", "output": "x"}])
    lost = AlpacaEval(AlpacaEvalConfig(path=instructions, reference_outputs=foreign))
    assert "no 'output' to any instruction" in lost.problems(context())[0]
    assert [p.name for p in lost.files(context())] == ["alpaca_eval.json", "outputs.json", "pairwise.yaml"]
    broken = tmp_path / "broken.json"
    broken.write_text("[{")
    with pytest.raises(UserError, match="not usable as JSON"):
        AlpacaEval(AlpacaEvalConfig(path=str(broken))).problems(context())
    with pytest.raises(UserError, match="no usable row, 1 refused"):
        AlpacaEval(AlpacaEvalConfig(annotations=foreign)).problems(context())
    assert all(option_docs(AlpacaEvalConfig)[name] for name in vars(AlpacaEvalConfig()))


def test_a_real_model_writes_and_judges(measuring: Callable[..., Any], tmp_path: Path) -> None:
    rubric = tmp_path / "short.yaml"  # the micro world's template knows no system turn
    template = "{instruction} A: {response_a} B: {response_b}"
    rubric.write_text(f"name: short\nsource: test\ntemplate: '{template}'\nverdict: '[[{{winner}}]]'\n")
    rows = [{"instruction": f"Say a {word}.", "output": "no."} for word in ("fox", "hen", "owl")]
    path = write(tmp_path / "q.json", rows)
    asked = measuring()
    config = AlpacaEvalConfig(path=path, rubric=str(rubric), max_new_tokens=16, judge_max_new_tokens=8)
    metrics = measured(AlpacaEval(config).evaluate(asked))
    assert (metrics["parse_rate"].value, metrics["parse_rate"].n, metrics["win_rate"].value) == (0, 3, None)
    outputs = json.loads((asked.folder / "outputs.json").read_text())
    assert all(row["output"] for row in outputs)
    assert asked.counters["completions"] == 6
    # the files it leaves are files it reads
    again = measuring()
    own = AlpacaEvalConfig(path=path, reference_outputs=str(asked.folder / "outputs.json"), max_new_tokens=16)
    assert measured(AlpacaEval(own).evaluate(again))["tie"].value == 1
    kept = AlpacaEvalConfig(annotations=str(asked.folder / "annotations.json"))
    assert measured(AlpacaEval(kept).evaluate(measuring()))["tie"].n == 3
