"""Runs side by side: what differs is told, seeds become an interval, settings are compared prompt by prompt."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats

from selfreward.core.cli import main, run_config
from selfreward.core.commands import compare as comparing
from selfreward.core.commands.compare import bootstrap, interval, labels
from selfreward.core.runner import run


def write_run(folder, config, values):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [
        {"model": model, "evaluator": "oracle", "metric": metric, "value": value, "low": None, "high": None, "n": 9}
        for (model, metric), value in values.items()
    ]
    (folder / "metrics.json").write_text(json.dumps(rows))
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    made = []
    for judge in ("llm_cot", "random"):
        for seed, score in enumerate((4.1, 4.4, 4.6)):
            config = {"seed": seed, "judge": {"name": judge, "votes": 2}, "runs_dir": f"r{seed}"}
            score -= judge == "random"
            made.append(
                write_run(tmp_path / f"{judge}{seed}", config, {("M3", "true_score"): score, ("M1", "fluent"): 0.5})
            )
    return made


def test_seeds_are_pooled_and_settings_told(runs, capsys):
    assert main(["compare", *runs, "--models", "M3", "--metrics", "true_score", "--format", "csv"]) == 0
    head, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert head == ["what", "model", "seeds", "true_score"]
    low, high = stats.t.interval(0.95, 2, loc=np.mean([4.1, 4.4, 4.6]), scale=stats.sem([4.1, 4.4, 4.6]))
    mean = np.mean([4.1, 4.4, 4.6])
    assert rows[0] == ["judge=llm_cot", "M3", "3", f"{mean:.2f} ± {(high - low) / 2:.2f}"]
    assert rows[1][0] == "judge=random"
    assert rows[1][3].startswith("3.37")


def test_markdown_has_one_cell_per_column(runs, capsys):
    assert main(["compare", *runs, "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len({line.count("|") for line in lines}) == 1


def test_one_value_has_no_interval():
    assert interval([0.25]) == "0.250"
    assert interval([]) == ""


def test_a_swapped_plugin_stands_for_its_options():
    one = {"judge.name": "llm_cot", "judge.votes": 3, "optimizer.lr": 1}
    other = {"judge.name": "random", "optimizer.lr": 1}
    assert labels([one, other]) == ["judge=llm_cot", "judge=random"]
    assert labels([one, {**one, "optimizer.lr": 2}]) == ["optimizer.lr=1", "optimizer.lr=2"]


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert main(["compare", str(tmp_path)]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.6])
def test_the_bootstrap_is_scipys(shift):
    differences = np.random.default_rng(7).normal(shift, 1, 200)
    low, high, p = bootstrap(differences)
    theirs = stats.bootstrap((differences,), np.mean, n_resamples=100_000, batch=5_000, method="percentile", rng=1)
    assert [low, high] == pytest.approx(list(theirs.confidence_interval), abs=0.01)
    means = theirs.bootstrap_distribution
    assert p == pytest.approx(2 * min(np.mean(means <= 0), np.mean(means >= 0)), abs=0.03)


def test_the_bootstrap_is_the_plain_loop_whatever_the_chunks(monkeypatch):
    differences, rng = [0.5, -1.0, 0.25, 2.0, 0.0, 1.0, -0.5], np.random.default_rng(3)
    means = [np.mean([differences[i] for i in rng.integers(7, size=7)]) for _ in range(500)]
    monkeypatch.setattr(comparing, "CELLS", 7 * 33)
    low, high, p = bootstrap(differences, resamples=500, seed=3)
    assert [low, high] == pytest.approx(list(np.percentile(means, [2.5, 97.5])))
    assert p == pytest.approx(2 * (sum(mean <= 0 for mean in means) + 1) / 501)


def test_p_is_uniform_where_nothing_differs():
    rng = np.random.default_rng(0)
    p = [bootstrap(rng.normal(0, 1, 60), resamples=400)[2] for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.10
    assert 0.4 < np.mean(p) < 0.6
    assert bootstrap([0.0] * 20)[2] == 1


SMALL = [
    "data.ift=12", "data.eft=4", "data.tasks=4", "data.evaluation=16", "data.judge_evaluation=2", "iterations=1",
    "prompt_generator.n=4", "evaluators=[oracle]", "monitors=[]", "evaluation.max_new_tokens=24",
]  # fmt: skip


@pytest.fixture(scope="module")
def real_runs(tmp_path_factory):
    """Two settings, two seeds each."""
    at = tmp_path_factory.mktemp("real")
    places = [f"runs_dir={at / 'runs'}", f"store.path={at / 'store'}"]
    return [
        run(run_config([*SMALL, *places, f"judge={judge}", f"seed={seed}"]))
        for judge in ("random", "length")
        for seed in (0, 1)
    ]


def vs_first(folders, capsys, *flags):
    assert main(["compare", *map(str, folders), "--metrics", "true_score", "--format", "csv", *flags]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    return {(row["what"], row["model"]): row["vs first"] for row in rows if "vs first" in row}


def differences_by_hand(folders, model):
    """The same figure from the parquet files and the data plugin alone."""
    data = run_config(SMALL).choices["data"].build()
    scores = []
    for folder, seed in zip(folders, (0, 1, 0, 1), strict=True):
        table = pq.read_table(folder / "evaluation" / model / "answers" / "00000.parquet").to_pylist()
        prompts = {row.prompt.prompt_id: row.prompt for row in data.split("evaluation", seed)}
        scores.append({r["prompt_id"]: data.truth(prompts[r["prompt_id"]], r["text"])["true_score"] for r in table})
    pairs = [(p, scores[2 + seed][p] - scores[seed][p]) for seed in (0, 1) for p in scores[seed]]
    return [np.mean([d for q, d in pairs if q == p]) for p in dict.fromkeys(p for p, _ in pairs)]


def test_settings_are_compared_prompt_by_prompt(real_runs, capsys):
    cells = vs_first(real_runs, capsys)
    assert cells["judge=random", "M2"] == ""
    assert cells["judge=length", "M1"] == "+0.00 [+0.00, +0.00] p=1.000", "the judge has no part in M1"
    differences = differences_by_hand(real_runs, "M2")
    assert len(differences) == 16, "both seeds of a prompt are one difference"
    assert np.any(differences)
    low, high, p = bootstrap(differences)
    assert cells["judge=length", "M2"] == f"{np.mean(differences):+.2f} [{low:+.2f}, {high:+.2f}] p={p:.3f}"


def test_the_other_way_round_has_the_other_sign(real_runs, capsys):
    cells = vs_first([*real_runs[2:], *real_runs[:2]], capsys)
    mean = float(cells["judge=random", "M2"].split()[0])
    assert mean == pytest.approx(-np.mean(differences_by_hand(real_runs, "M2")), abs=0.006)


def test_text_and_markdown_tell_it_too(real_runs, capsys):
    for form in ("text", "markdown"):
        assert main(["compare", *map(str, real_runs), "--format", form]) == 0
        said = capsys.readouterr().out
        assert "vs first" in said
        assert "+0.00 [+0.00, +0.00] p=1.000" in said


def test_other_seeds_or_one_setting_are_not_compared(real_runs, capsys):
    assert vs_first([real_runs[0], real_runs[3]], capsys) == {}
    assert vs_first(real_runs[:2], capsys) == {}


def test_answers_are_linked_also_when_reused_and_stale_links_go(real_runs, tmp_path, capsys):
    store = real_runs[0].parents[2] / "store"
    overrides = [*SMALL, f"store.path={store}", f"run_dir={tmp_path / 'again'}", "judge=random", "seed=0"]
    again = run(run_config(overrides))
    for name in ("M0", "M1", "M2"):
        link, first = again / "evaluation" / name / "answers", real_runs[0] / "evaluation" / name / "answers"
        assert not os.path.isabs(os.readlink(link))
        assert link.resolve() == first.resolve()
        assert link.resolve().parent == (store / "answers").resolve()
    run(run_config([*overrides, "evaluators=[]"]))
    assert not list(again.glob("evaluation/*/answers"))
    capsys.readouterr()
    assert vs_first([again, real_runs[2]], capsys) == {}, "no answers, no column"


def test_few_prompts_are_not_enough(real_runs, capsys, monkeypatch):
    monkeypatch.setattr(comparing, "FEWEST_PROMPTS", 17)
    assert vs_first([real_runs[0], real_runs[2]], capsys) == {}


def test_a_plugin_that_is_gone_is_named_and_the_figures_stay(real_runs, tmp_path, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    for name in ("metrics.json", "evaluation"):
        (gone / name).symlink_to(real_runs[2] / name)
    config = Path(real_runs[2] / "config.yaml").read_text(encoding="utf-8")
    (gone / "config.yaml").write_text(config.replace("name: length\n", "name: strangers\n", 1), encoding="utf-8")
    assert main(["compare", str(real_runs[0]), str(gone)]) == 0
    said = capsys.readouterr()
    assert "is left out of 'vs first'" in said.err
    assert "strangers" in said.err
    assert "true_score" in said.out


def test_an_option_is_told_where_its_plugin_stays_the_same():
    plain = {"judge.name": "llm_cot", "judge.model": "policy", "recipe.eft.source": "file"}
    frozen, random = {**plain, "judge.model": "M1"}, {"judge.name": "random", "recipe.eft.source": "file"}
    untaught = {**plain, "recipe.eft.source": "none"}
    assert labels([plain, frozen, random, untaught, plain]) == [
        "as configured", "judge.model=M1", "judge=random", "recipe.eft.source=none", "as configured",
    ]  # fmt: skip


def test_every_figure_is_in_the_csv(tmp_path, capsys):
    values = {("M2", "true_score"): 4.0, ("M2", "cut_off"): 0.1, ("M2", "a_strangers_figure"): 7.0}
    assert main(["compare", write_run(tmp_path / "r", {"seed": 0}, values), "--format", "csv"]) == 0
    head, row = csv.reader(io.StringIO(capsys.readouterr().out))
    assert {"true_score", "cut_off", "a_strangers_figure"} <= set(head)
    assert dict(zip(head, row, strict=True))["a_strangers_figure"] == "7.00"
