"""What a run refuses before any work, and how it ends when a stage fails."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from selfreward import Finding, Judge, Judgement, Monitor, Plugin, Severity, StageError, UserError
from selfreward.core.cli import main, run_config
from selfreward.core.config.registry import Registered, registry
from selfreward.core.run.run import Run
from selfreward.core.runner import run

SMALL = [
    "data.ift=12", "data.eft=4", "data.tasks=4", "data.evaluation=4", "data.judge_evaluation=2", "iterations=1",
    "prompt_generator.n=4", "evaluators=[]", "monitors=[health]", "runs_dir=runs", "store.path=store",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def m0(tmp_path) -> Path:
    """A copy of the embedded checkpoint that may be damaged."""
    source = Path(run_config([]).choices["model"].build().path())
    return Path(shutil.copytree(source, tmp_path / "m0"))


@pytest.fixture(scope="module")
def random_store(tmp_path_factory) -> Path:
    """The store of a whole run whose judge is random."""
    folder = tmp_path_factory.mktemp("random")
    run(run_config([*SMALL, "judge=random", f"runs_dir={folder / 'runs'}", f"store.path={folder / 'store'}"]))
    return folder / "store"


@pytest.fixture
def _store(random_store, tmp_path):
    """A copy of it as the test's own."""
    shutil.copytree(random_store, tmp_path / "store")


@dataclass
class NoConfig:
    """No options."""


class Fails(Judge):
    """Raises at the sixth candidate it is asked about."""

    def score(self, answered, context) -> Iterator[Judgement]:
        candidates = [candidate for group in answered for candidate in group.candidates]
        for number, candidate in enumerate(candidates):
            if number == 5:
                raise ZeroDivisionError("a made-up accident")
            yield Judgement(candidate.candidate_id, "fails", "-", "-", [1.0], 1.0, [""])


class Forgets(Judge):
    """Gives no judgement for the last candidate."""

    def score(self, answered, context) -> Iterator[Judgement]:
        candidates = [candidate for group in answered for candidate in group.candidates]
        for candidate in candidates[:-1]:
            yield Judgement(candidate.candidate_id, "forgets", "-", "-", [1.0], 1.0, [""])


class Mute(Judge):
    """Reads no verdict."""

    def score(self, answered, context) -> Iterator[Judgement]:
        for group in answered:
            for candidate in group.candidates:
                yield Judgement(candidate.candidate_id, "mute", "-", "-", [None, None], None, ["?", "?"])


@pytest.fixture
def judges(monkeypatch):
    """Judges that misbehave, registered as a package's would be."""
    for judge in (Fails, Forgets, Mute):
        name = judge.__name__.lower()
        monkeypatch.setitem(globals(), judge.__name__, judge)
        plugin = Plugin(name, f"{__name__}:{judge.__name__}", NoConfig)
        monkeypatch.setitem(registry().kinds["judge"], name, [Registered(plugin, "tests 0")])


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as refused:
        run(run_config([*SMALL, *overrides]))
    assert not Path("store").exists(), "refused before any work"
    return str(refused.value)


def test_a_model_folder_that_does_not_exist():
    assert "no such folder" in refusal("model=hf", "model.path=nowhere")


def test_pickled_weights_are_refused_with_the_mend(m0):
    (m0 / "model.safetensors").unlink()
    (m0 / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    said = refusal("model=hf", f"model.path={m0}")
    assert "pytorch_model.bin" in said
    assert "safetensors" in said


def test_a_model_without_a_chat_template(m0):
    (m0 / "chat_template.jinja").unlink()
    assert "model.chat_template" in refusal("model=hf", f"model.path={m0}")


def test_a_context_too_short_for_the_rubric_says_the_numbers(m0):
    config = json.loads((m0 / "config.json").read_text())
    (m0 / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    said = refusal("model=hf", f"model.path={m0}", "model.rubric=micro")
    assert "context of 64 tokens is too short" in said
    assert "judge.max_new_tokens" in said


def test_a_role_that_no_model_plays():
    said = refusal("judge.model=M7", "optimizer.init_from=M2")
    assert "judge.model=M7" in said
    assert "optimizer.init_from=M2" in said


def test_a_frozen_judge_is_a_role_that_exists_in_time():
    assert run_config([*SMALL, "judge.model=M1"]).choices["judge"].config.model == "M1"


def test_an_oracle_judge_needs_data_that_has_a_truth(tmp_path):
    rows = [{"prompt": f"say {i}", "response": f"{i}"} for i in range(40)]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    overrides = [o for o in SMALL if not o.startswith("data.")] + [
        "data=jsonl",
        "data.path=pairs.jsonl",
        "judge=oracle",
    ]
    with pytest.raises(UserError, match="ground truth"):
        run(run_config(overrides))


def test_missing_files_and_unknown_rubrics_are_told_together():
    said = refusal("judge.rubric=nope", "prompt_generator.model=M9")
    assert "nope" in said
    assert "M9" in said


@pytest.mark.usefixtures("_store")
def test_a_plugin_that_raises_is_named_with_stage_and_row(judges, capsys):
    code = main([*SMALL, "judge=fails"])
    said = capsys.readouterr().err
    assert code == 3
    assert "judge 'fails' (iter-01, judgements) failed at candidate " in said
    assert "ZeroDivisionError: a made-up accident" in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("_store")
def test_a_judge_that_forgets_a_candidate_breaks_the_contract(judges):
    with pytest.raises(StageError, match="one judgement per candidate, in order"):
        run(run_config([*SMALL, "judge=forgets"]))


@pytest.mark.usefixtures("_store")
def test_with_nothing_left_to_train_on_the_run_ends_and_says_why(judges):
    with pytest.raises(StageError) as ended:
        run(run_config([*SMALL, "judge=mute"]))
    said = str(ended.value)
    assert "nothing is left to train on" in said
    assert "0.0% of 32 verdicts could be read" in said
    assert "4 prompts" in said


def test_a_failure_keeps_what_was_finished(judges, capsys):
    with pytest.raises(StageError):
        run(run_config([*SMALL, "judge=fails"]))
    capsys.readouterr()
    run(run_config([*SMALL, "judge=random"]))
    lines = capsys.readouterr().out.split("iter-01")[1].splitlines()
    assert any(line.startswith("  prompts ") and "reused" in line for line in lines)
    assert any(line.startswith("  candidates ") and "reused" in line for line in lines)


def test_a_run_folder_is_named_by_what_differs_and_is_stable():
    from selfreward.core.run.folder import run_folder

    plain, seeded = run_folder(run_config(SMALL)), run_folder(run_config([*SMALL, "seed=3", "judge=random"]))
    assert plain == run_folder(run_config(SMALL))
    assert plain != seeded
    assert "judge=random" in seeded.name
    assert "seed=3" in seeded.name


def test_a_dry_run_tells_the_plan_and_touches_nothing(tmp_path, capsys):
    before = set(tmp_path.rglob("*"))
    run(run_config([*SMALL, "dry_run=true", "evaluators=[oracle]"]))
    said = capsys.readouterr().out
    assert set(tmp_path.rglob("*")) == before
    assert "iter-01: M1 → M2" in said
    rows = [line.split() for line in said.splitlines() if line.startswith("iter-01  ")]
    assert [row[-3:] for row in rows] == [
        ["4", "4", "96"], ["16", "16", "768"], ["16", "32", "1,280"], ["4", "-", "-"], ["4", "-", "-"],
    ]  # fmt: skip
    assert "3 checkpoints" in said


@pytest.mark.usefixtures("_store")
def test_a_dry_run_knows_what_the_store_has(capsys):
    run(run_config([*SMALL, "judge=random", "selector=positive_only", "optimizer=sft", "dry_run=true"]))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("iter-01  ")]
    assert ["in the store" in line for line in lines] == [True, True, True, False, False]


@pytest.mark.usefixtures("_store")
def test_what_is_not_reused_is_explained(capsys):
    run(run_config([*SMALL, "judge=length", "sampler.temperature=0.9"]))
    said = capsys.readouterr().out.split("iter-01")[1]
    assert "not in the store: nucleus.temperature 0.9, was 1.0" in said
    assert "not in the store: length, was random" in said
    assert "not in the store: other judgements" in said


def test_an_edited_rubric_is_noticed(tmp_path, capsys):
    rubric = tmp_path / "mine.yaml"
    text = (Path(__file__).parents[3] / "conf" / "rubric" / "micro.yaml").read_text(encoding="utf-8")
    rubric.write_text(text, encoding="utf-8")
    overrides = [*SMALL, f"judge.rubric={rubric}", "sampler.n=2"]
    # a judge that is never taught may leave nothing to train on; the judgements are there all the same
    for edit in ("", "\n# a comment that changes the bytes\n"):
        rubric.write_text(text + edit, encoding="utf-8")
        with contextlib.suppress(StageError):
            run(run_config(overrides))
        said = capsys.readouterr().out
    assert "not in the store: a file that llm_cot reads was edited" in said


class Tracker(Monitor):
    """A stranger's tracker that loses its connection when the candidates are there."""

    def stage_finished(self, event):
        if event.stage == "candidates":
            raise ConnectionError("the tracker's server is down")
        yield Finding(Severity.note, f"saw {event.stage}")


def test_a_monitor_that_raises_is_named(monkeypatch, capsys):
    plugin = Plugin("tracker", f"{__name__}:Tracker", NoConfig)
    monkeypatch.setitem(registry().kinds["monitors"], "tracker", [Registered(plugin, "tests 0")])
    monkeypatch.setattr(Plugin, "load", lambda self: Tracker if self.name == "tracker" else LOAD(self))
    with pytest.raises(StageError, match=r"monitors 'tracker' failed at stage_finished \(ift candidates\): Connection"):
        run(run_config([*SMALL, "monitors=[tracker]"]))
    assert "note: saw prompts" in capsys.readouterr().out


LOAD = Plugin.load


def test_an_older_store_is_left_alone_and_that_is_said_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        manifest = tmp_path / "store" / "prompts" / str(number) / "manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text('{\n "files": [],\n "format": 1,\n "key": "0"\n}\n')
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("manifest.json")}
    Run(run_config(["store.path=store", "monitors=[]"])).start()
    said = capsys.readouterr().out
    assert said.count("stages of an older version in the store: 3; left alone, their work is done anew") == 1
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("manifest.json")} == before
