"""Runs side by side: what differs is told, seeds become an interval."""

import csv
import io
import json

import numpy as np
import pytest
import yaml
from scipy import stats

from selfreward.core.cli import main
from selfreward.core.compare import interval, labels


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
