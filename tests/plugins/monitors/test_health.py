"""Every gate speaks beyond its level and only there; advice names options that exist; reused stages are told alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import Candidate, Event, Finding, Judgement, Metric, Prompt, Severity, StageError
from selfreward.core.cli import run_config
from selfreward.core.runner import run
from selfreward.plugins.monitors.health import GATES, Health, HealthConfig, advice

COMPOSED = run_config([]).composed
SMALL = [
    "data.ift=12", "data.eft=4", "data.tasks=4", "data.evaluation=4", "data.judge_evaluation=2", "iterations=1",
    "prompt_generator.n=4", "evaluators=[]", "runs_dir=runs", "store.path=store", "monitors.health.min_items=4",
]  # fmt: skip


def monitor(config: dict[str, Any] | None = None, **levels: Any) -> Health:
    """A monitor of the default run."""
    health = Health(HealthConfig(**levels))
    assert list(health.run_started(Event(Path("run"), config=COMPOSED if config is None else config))) == []
    return health


def stage(name: str, iteration: int = 2, model: str = "M2", folder: Path | None = None, **figures: float) -> Event:
    """A stage of a round is finished."""
    return Event(Path("run"), "loop" if iteration else "eft", iteration, name, model, folder, figures)


def told(findings: Any) -> list[tuple[str, str]]:
    """(severity, text) of the findings."""
    return [(finding.severity.value, finding.text) for finding in findings]


def one(findings: Any) -> Finding:
    """The only finding."""
    [finding] = findings
    return finding


# --------------------------------------------------------------------------------------------------- gates on figures


def test_a_finding_names_the_numbers_the_level_the_cause_and_the_knobs():
    finding = one(monitor().stage_finished(stage("judgements", votes=3200, unreadable=2202)))
    assert finding.severity is Severity.warning
    assert finding.text == (
        "iter-02: 31.2% of 3,200 verdicts could be read (warn below 90%): the judge does not keep to the rubric's "
        "form, or cannot tell what these answers are worth; ways out: raise judge.max_new_tokens (now 40), lower "
        "judge.temperature (now 0.7), raise optimizer.nll (now 0.2), lower optimizer.lr (now 0.0002), judge.model=M1"
    )


@pytest.mark.parametrize(
    ("name", "good", "bad", "says"),
    [
        ("prompts", {"tried": 100, "parsed": 90, "dropped: duplicate": 40},
         {"tried": 100, "parsed": 90, "dropped: duplicate": 30, "dropped: too similar": 11}, "49.0% of 100 prompts"),
        ("candidates", {"rows": 100, "cut_off": 10}, {"rows": 100, "cut_off": 11}, "11.0% of 100 answers were cut off"),
        ("judgements", {"votes": 100, "unreadable": 10}, {"votes": 100, "unreadable": 11}, "89.0% of 100 verdicts"),
        ("training_set", {"rows": 20, "prompts": 100}, {"rows": 19, "prompts": 100}, "19 training rows came of 100"),
        ("model", {"chosen_change": -5.0, "rows": 99}, {"chosen_change": -5.1, "rows": 99}, "-5.1 nats"),
    ],
)  # fmt: skip
def test_a_gate_warns_beyond_its_level_and_not_at_it(name, good, bad, says):
    assert told(monitor().stage_finished(stage(name, **good))) == []
    finding = one(monitor().stage_finished(stage(name, **bad)))
    assert finding.severity is Severity.warning
    assert says in finding.text


@pytest.mark.parametrize("off", [0, None])
def test_a_level_of_nothing_switches_a_gate_off(off):
    silent = monitor(parse_rate_warn=off, parse_rate_stop=off)
    assert told(silent.stage_finished(stage("judgements", votes=100, unreadable=100))) == []


def test_few_items_are_no_evidence():
    few, enough = stage("judgements", votes=19, unreadable=19), stage("judgements", votes=20, unreadable=20)
    assert told(monitor().stage_finished(few)) == []
    assert one(monitor().stage_finished(enough)).severity is Severity.stop


def test_a_stage_without_the_figures_says_nothing():
    health = monitor()
    assert [told(health.stage_finished(stage(gate.stage))) for gate in GATES if gate.stage] == [[]] * 7


def test_only_the_judges_parse_rate_ends_a_run_unless_asked():
    hopeless = {
        "prompts": {"tried": 100, "parsed": 0},
        "candidates": {"rows": 100, "cut_off": 100},
        "training_set": {"rows": 0, "prompts": 100},
        "model": {"chosen_change": -400.0, "rows": 100},
    }
    for name, figures in hopeless.items():
        assert one(monitor().stage_finished(stage(name, **figures))).severity is Severity.warning
    stop = one(
        monitor(pair_yield_stop=0.05).stage_finished(stage("training_set", model="", **hopeless["training_set"]))
    )
    assert stop.severity is Severity.stop
    assert "(stop below 5%)" in stop.text


def test_unreadable_verdicts_end_a_run_whose_judge_is_a_model_and_no_other():
    unread = {"votes": 100, "unreadable": 96}
    assert one(monitor().stage_finished(stage("judgements", **unread))).severity is Severity.stop
    assert one(monitor().stage_finished(stage("judgements", model="", **unread))).severity is Severity.warning
    assert told(monitor().stage_finished(stage("judgements", iteration=0, model="", **unread))) == [], "people rank"


def test_a_model_that_judges_before_the_loop_is_told_the_options_of_its_round():
    config = {"recipe": {"eft": {"judge": {"temperature": 0.7}}}, "judge": {"temperature": 0.2}}
    finding = one(monitor(config).stage_finished(stage("judgements", 0, "sft", votes=100, unreadable=50)))
    assert finding.text.startswith("eft: 50.0%")
    assert finding.text.endswith("; ways out: lower recipe.eft.judge.temperature (now 0.7)")


def test_prompts_out_of_the_data_need_not_be_new():
    assert told(monitor().stage_finished(stage("prompts", model="", tried=100, parsed=10))) == []


# ---------------------------------------------------------------------------------------------------- gates on tables


def tables(folder: Path, groups: Sequence[Sequence[float | None]], per_shard: int = 7) -> tuple[Path, Path]:
    """Candidates and judgements, one group of scores per prompt, in shards that split no group."""
    for shard, start in enumerate(range(0, len(groups), per_shard)):
        candidates, judgements = [], []
        for number, scores in enumerate(groups[start : start + per_shard], start):
            prompt = Prompt.of(f"prompt {number}", "M1")
            for k, score in enumerate(scores):
                candidates.append(Candidate.of(prompt, f"answer {k}", k, origin="M1", model="M1"))
                judgements.append(Judgement(candidates[-1].candidate_id, "j", "M1", "r", [score], score, [""]))
        for name, record, rows in (("c", Candidate, candidates), ("j", Judgement, judgements)):
            (folder / name).mkdir(exist_ok=True)
            pq.write_table(record.table(rows), folder / name / f"{shard:05d}.parquet")
    return folder / "c", folder / "j"


def judged(folder: Path, groups: Sequence[Sequence[float | None]], **levels: Any) -> list[tuple[str, str]]:
    """What is said of the two tables."""
    candidates, judgements = tables(folder, groups)
    health = monitor(**levels)
    assert told(health.stage_finished(stage("candidates", folder=candidates))) == []
    return told(health.stage_finished(stage("judgements", folder=judgements)))


def test_scores_that_pile_up_and_tie(tmp_path):
    groups = [[4.0, 4.0, None, 4.0]] * 11 + [[4.0, 4.0, 4.0, 1.0]] * 9 + [[None, 4.0]] * 5
    (_, saturated), (_, tied) = judged(tmp_path, groups)
    assert "87.8% of 74 scored answers have the score 4 (warn above 80%)" in saturated
    assert "ways out: another judge.rubric (now null), raise judge.votes (now 2)" in saturated
    assert "55.0% of 20 prompts have answers that all got one score (warn above 50%)" in tied


def test_scores_that_tell_answers_apart(tmp_path):
    assert judged(tmp_path, [[1.0, 2.0, 3.0, 4.0], [2.0, 2.0]] * 10) == []


@given(st.lists(st.lists(st.sampled_from([None, 0.0, 2.5, 5.0]), min_size=1, max_size=4), min_size=1, max_size=20))
def test_shares_of_tables_are_those_of_plain_counting(tmp_path_factory, groups):
    said = judged(tmp_path_factory.mktemp("t"), groups, min_items=1, saturation_warn=1e-9, ties_warn=1e-9)
    scores = [score for group in groups for score in group if score is not None]
    several = [scored for group in groups if len(scored := [s for s in group if s is not None]) > 1]
    tied = sum(min(group) == max(group) for group in several)
    expected = [f"{max(map(scores.count, scores)) / len(scores):.1%} of {len(scores)} scored"] if scores else []
    expected += [f"{tied / len(several):.1%} of {len(several)} prompts"] if tied else []
    assert [text.removeprefix("iter-02: ").startswith(e) for (_, text), e in zip(said, expected, strict=True)] == [
        True for _ in expected
    ]


# ----------------------------------------------------------------------------------------------------- gates on models


def measured(health: Health, model: str, iteration: int, **figures: float | None) -> list[tuple[str, str]]:
    """What is said of a model; ``high`` is the upper bound of its pairwise accuracy."""
    high = figures.pop("high", None)
    evaluators = {"response_length": "loop", "pairwise_accuracy": "judge_agreement", "parse_rate": "judge_agreement"}
    metrics = [Metric(model, evaluators[name], name, value, None, high, 300) for name, value in figures.items()]
    return told(health.iteration_finished(Event(Path("run"), iteration=iteration, model=model, metrics=metrics)))


def test_growth_is_measured_against_the_first_model_of_the_loop_and_the_previous_one():
    health = monitor()
    for model, length in (("M0", 10), ("sft", 20), ("M1", 1092)):
        assert measured(health, model, 0, response_length=length) == []
    assert measured(health, "M2", 1, response_length=1552) == []
    [(severity, text)] = measured(health, "M3", 2, response_length=2552)
    assert severity == "warning"
    assert "M3's answers have 2552 characters, 2.34 times the 1092 of M1 (warn above 1.5 times)" in text
    assert "pair_filters=[length_ratio]" in text
    [(_, text)] = measured(health, "M4", 3, response_length=1200)
    assert "0.47 times the 2552 of M3 (warn below 0.6 times)" in text


def test_answers_that_vanish_are_shorter_and_not_an_error():
    health = monitor()
    assert measured(health, "M1", 0, response_length=50) == []
    [(_, text)] = measured(health, "M2", 1, response_length=0)
    assert "0.00 times the 50 of M1" in text
    assert measured(health, "M3", 2, response_length=50) == [], "nothing can be said against a length of 0"


def test_a_judge_is_held_against_the_best_so_far_beyond_noise():
    health = monitor()
    for model, accuracy in (("M0", 0.5), ("sft", 0.45), ("M1", 0.9)):
        assert measured(health, model, 0, pairwise_accuracy=accuracy) == []
    assert measured(health, "M2", 1, pairwise_accuracy=0.84, high=0.91) == [], "within the interval"
    [(severity, text)] = measured(health, "M3", 2, pairwise_accuracy=0.84, high=0.89)
    assert severity == "warning"
    assert "as a judge M3 orders 84.0% of 300 pairs as people do, M1 90.0% (warn above a fall of 5%)" in text
    assert measured(health, "M4", 3, pairwise_accuracy=0.86, high=0.87) == []
    assert measured(health, "M5", 4, pairwise_accuracy=None) == []


def test_verdicts_on_held_out_answers_that_cannot_be_read():
    health = monitor()
    assert measured(health, "sft", 0, parse_rate=0.0) == [], "nobody taught it to judge yet"
    [(severity, text)] = measured(health, "M2", 1, parse_rate=0.253)
    assert severity == "warning"
    assert "iter-01: 25.3% of 300 verdicts by M2 on held-out answers could be read (warn below 90%)" in text


def test_a_run_without_evaluators_is_measured_by_nothing():
    health = monitor()
    assert [measured(health, model, iteration) for iteration, model in enumerate(["M1", "M2", "M3"])] == [[]] * 3


# --------------------------------------------------------------------------------------------------------------- knobs


def test_every_knob_is_an_option_of_some_plugin():
    runs = [[], ["pair_filters=[length_ratio]"], ["selector=positive_only"], ["recipe.eft.source=none"]]
    configs = [run_config(overrides).composed for overrides in runs]
    for knob in {knob for gate in GATES for knob in gate.knobs}:
        turned = knob.replace("lower ", "raise ")
        assert any(advice(turned, config, "M2") for config in configs), f"{knob}: no run has it"


def test_every_gate_has_its_levels_and_every_level_its_gate():
    levels = {field.name for field in dataclasses.fields(HealthConfig)} - {"min_items"}
    assert {name.rpartition("_")[0] for name in levels} == {gate.name for gate in GATES}
    assert {f"{gate.name}_warn" for gate in GATES} <= levels


@pytest.mark.parametrize(
    ("knob", "expected"),
    [
        ("raise judge.votes", "raise judge.votes (now 3)"),
        ("lower selector.margin", ""),  # 0 cannot be lowered
        ("lower judge.temperature", ""),  # no such option
        ("another judge.rubric", "another judge.rubric (now null)"),
        ("judge.model=M1", "judge.model=M1"),
        ("judge.model=M3", ""),  # as it is
        ("judge.model=M2", ""),  # the model that is spoken of
        ("recipe.eft.source=file", ""),
        ("pair_filters=[length]", ""),
        ("pair_filters=[length_ratio]", "pair_filters=[length_ratio]"),
        ("judge.votes.more=1", ""),
    ],
)
def test_advice_is_given_where_it_changes_something(knob, expected):
    config = {
        "judge": {"votes": 3, "rubric": None, "model": "M3"},
        "selector": {"margin": 0.0},
        "recipe": {"eft": {"source": "file"}},
        "pair_filters": {"length": {}},
    }
    assert advice(knob, config, "M2") == expected


@pytest.mark.parametrize("judge", ["random", "length", "oracle"])
def test_a_control_gets_no_advice_about_a_judge_it_has_not(judge):
    config = run_config([f"judge={judge}"]).composed
    text = one(monitor(config).stage_finished(stage("judgements", model="", votes=100, unreadable=50))).text
    assert "judge.votes" not in text
    assert "judge.model" not in text
    assert "optimizer.nll" in text


# ---------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_own_folder")
def test_a_run_is_told_the_same_of_reused_stages(capsys):
    strict = ["judge=random", "monitors.health.saturation_warn=0.01", "monitors.health.chosen_fall_warn=0.001",
              "monitors.health.cut_off_warn=0.001", "monitors.health.novelty_warn=1"]  # fmt: skip
    said = []
    for _ in range(2):
        run(run_config([*SMALL, *strict]))
        said.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("  warning: ")])
    assert said[0] == said[1]
    assert sum("scored answers have the score" in line for line in said[0]) == 1
    assert all("warning: iter-01: " in line for line in said[0]), "people's rounds are not looked at"


@pytest.mark.usefixtures("_own_folder")
def test_a_stop_ends_the_run_and_the_work_stays(capsys):
    run(run_config([*SMALL, "judge=random"]))
    with pytest.raises(StageError, match=r"iter-01: .*\(stop above 1%\)"):
        run(run_config([*SMALL, "judge=random", "monitors.health.saturation_stop=0.01"]))
    assert "reused" in capsys.readouterr().out.split("iter-01")[-1]
