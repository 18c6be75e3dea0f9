"""Every mistake is told in one message: what, where, what to do. Nothing runs that was not asked for."""

from __future__ import annotations

import os
import pickle
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from selfreward import Plugin, UserError
from selfreward.core.cli import QUIET, main, run_config
from selfreward.core.commands.run import _split
from selfreward.core.config.kinds import HOOKS, KINDS
from selfreward.core.config.registry import Registered, registry


@pytest.fixture(scope="session")
def stop(tmp_path_factory):
    """Overrides that only the last check before the first token refuses: what is wrongly accepted does not run on."""
    folder = tmp_path_factory.mktemp("no_weights")
    (folder / "config.json").write_text("{}")
    return ("model=hf", f"model.path={folder}")


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """``refused(*arguments)``: the message of a command that must be refused, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFREWARD_STORE", str(tmp_path / "store"))

    def run(*arguments: str) -> str:
        code = main(arguments)
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert err.startswith("selfreward: ")
        for noise in ("Traceback", "object_type=", "full_key:", "append to your config", "HYDRA_FULL_ERROR"):
            assert noise not in err
        assert not list(tmp_path.iterdir()), "something was written before the check"
        return err.removeprefix("selfreward: ").rstrip("\n")

    return run


# ------------------------------------------------------------------------------------------------- wrong configurations

WRONG = {
    # what does not exist
    "judge=llm_cott": "judge=llm_cott: there is no judge 'llm_cott'; did you mean 'llm_cot'?",
    "judge=gpt4": "judge=gpt4: there is no judge 'gpt4'; there are: ensemble, human_rank, ",
    "jugde=random": "there is no option 'jugde'; did you mean 'judge'?",
    "judge.vots=3": "there is no option 'judge.vots'; did you mean 'votes'?",
    "++judge.vots=3": "there is no option 'judge.vots'; did you mean 'votes'?",
    "+judge.vots=3": "there is no option 'judge.vots'; did you mean 'votes'?",
    "iteration=3": "there is no option 'iteration'; did you mean 'iterations'?",
    "store.pth=x": "there is no option 'store.pth'; did you mean 'path'?",
    "evaluation.tempreature=1": "there is no option 'evaluation.tempreature'; did you mean 'temperature'?",
    "model.lora.rank=3": "there is no option 'model.lora.rank'; there are: r, alpha, dropout, target_modules",
    "recipe.iftt.judge.name=random": "there is no option 'recipe.iftt'; did you mean 'ift'?",
    "recipe.ift.optimizer.lrr=1": "there is no option 'recipe.ift.optimizer.lrr'; did you mean 'lr'?",
    "recipe.ift.judge.name=nobody": "recipe.ift.judge: there is no judge 'nobody'; there are: ensemble, human_rank, ",
    "evaluators=[oracel]": "evaluators=oracel: there is no evaluator 'oracel'; did you mean 'oracle'?",
    "prompt_filters=[rouge]": "prompt_filters=rouge: there is no prompt_filter 'rouge'; did you mean 'rouge_l'?",
    "experiment=micro_fats": "experiment=micro_fats: no such experiment; did you mean 'micro_fast'?",
    "judge.rubric=${nowhere}": "judge.rubric: Interpolation key 'nowhere' not found",
    # types
    "sampler.n=four": "sampler.n=four: Value 'four' of type 'str' could not be converted to Integer",
    "judge.votes=2.5": "judge.votes=2.5: Value '2.5' of type 'float' could not be converted to Integer",
    "judge.votes=true": "judge.votes=True: Value 'True' of type 'bool' could not be converted to Integer",
    "judge.votes.x=3": "judge.votes={'x': 3}: Value '{'x': 3}' of type 'dict' could not be converted to Integer",
    "recipe.eft.source=maybe": "recipe.eft.source=maybe: Invalid value 'maybe', expected one of [file, ranked, none]",
    "model.dtype=float16": "model.dtype=float16: Invalid value 'float16', expected one of [float32, bfloat16, auto]",
    "store.match=close": "store.match=close: Invalid value 'close', expected one of [content, exact]",
    "seed=null": "seed=None: field 'seed' is not Optional",
    "store=here": "store=here: Invalid type assigned: str is not a subclass of StoreOptions",
    "seed=0,1": "Ambiguous value for argument",
    # ranges, of an option and between options
    "sampler.n=0": "sampler.n=0 is out of range: it must be at least 1",
    "seed=-1": "seed=-1 is out of range: it must be at least 0",
    "iterations=-1": "iterations=-1 is out of range: it must be at least 0",
    "shard_size=0": "shard_size=0 is out of range: it must be at least 1",
    "judge.top_p=1.5": "judge.top_p=1.5 is out of range: it must be at most 1",
    "optimizer.lr=nan": "optimizer.lr=nan is out of range",
    "optimizer.lr=inf": "optimizer.lr=inf is out of range",
    "recipe.ift.optimizer.lr=-1": "recipe.ift.optimizer.lr=-1.0 is out of range: it must be above 0",
    "model.lora.r=-1": "model.lora.r=-1 is out of range: it must be at least 0",
    "evaluation.judge.votes=0": "evaluation.judge.votes=0 is out of range: it must be at least 1",
    "sampler.temperature=0": "sampler: n=4 answers at temperature=0 are all the same",
    # groups
    "judge=null": "judge=null: takes one name, judge=NAME (ensemble, human_rank, implicit, length, llm_cot, ",
    "~judge": "judge=NAME (ensemble, human_rank, implicit, length, llm_cot, ",
    "judge=[random,length]": "random, reward_model); a sweep is -m judge=A,B",
    "evaluators=null": "evaluators=null: takes a list of names",
    "data=jsonl": "data: path is not set; give a file of prompts and responses, data.path=FILE.jsonl",
    # what does not fit together
    "selector=positive_only optimizer=dpo": "selector=positive_only writes demonstrations, optimizer=dpo reads "
    "preferences: they do not fit; use optimizer=sft or selector=best_worst",
    "selector=best_worst optimizer=sft": "use optimizer=dpo or selector=positive_only",
    "recipe.ift.selector.name=best_worst": "recipe.ift: selector=best_worst writes preferences, optimizer=sft reads",
    "-m run_dir=x": "run_dir names one folder, and a sweep has many: use runs_dir with -m",
    # what is no override
    "judge": "judge: not an override of the form option=value",
    "judge.votes=[1": "judge.votes=[1: not an override of the form option=value",
    # sweeps are checked before their first job, too
    "-m judge=random,nobody": "judge=nobody: there is no judge 'nobody'",
    "-m judge=random,length seed=-1": "seed=-1 is out of range",
    "judge=random,length -m judge.vots=3": "there is no option 'judge.vots'",
    # a misspelt name in every group
    "model=micr": "model=micr: there is no model 'micr'; did you mean 'micro'?",
    "data=jsonll": "data=jsonll: there is no data 'jsonll'; did you mean 'jsonl'?",
    "recipe=self_rewardin": "there is no recipe 'self_rewardin'; did you mean 'self_rewarding'?",
    "prompt_generator=self_instuct": "there is no prompt_generator 'self_instuct'; did you mean 'self_instruct'?",
    "sampler=nuclues": "sampler=nuclues: there is no sampler 'nuclues'; did you mean 'nucleus'?",
    "candidate_filters=[lenght]": "there is no candidate_filter 'lenght'; did you mean 'length'?",
    "selector=best_wrost": "selector=best_wrost: there is no selector 'best_wrost'; did you mean 'best_worst'?",
    "pair_filters=[length_rato]": "there is no pair_filter 'length_rato'; did you mean 'length_ratio'?",
    "optimizer=dpoo": "optimizer=dpoo: there is no optimizer 'dpoo'; did you mean 'dpo'?",
    "engine=transformer": "engine=transformer: there is no engine 'transformer'; did you mean 'transformers'?",
    "monitors=[helth]": "monitors=helth: there is no monitor 'helth'; did you mean 'health'?",
    "ablation=no_etf": "ablation=no_etf: no such ablation; did you mean 'no_eft'?",
    "++judge=nobody": "judge=nobody: there is no judge 'nobody'",
    "++evaluation.judge=nobody": "evaluation.judge: there is no judge 'nobody'; there are: ensemble, human_rank, ",
    "judge=metric judge.metrics=[rouge_k]": "there is no metric 'rouge_k'; did you mean 'rouge_l'?",
    "metric=rouge_l": "there is no option 'metric'",
    # a misspelt option in every group
    "model.dtyp=auto": "there is no option 'model.dtyp'; did you mean 'dtype'?",
    "data=jsonl data.pth=x": "there is no option 'data.pth'; did you mean 'path'?",
    "recipe.eft.sorce=file": "there is no option 'recipe.eft.sorce'; did you mean 'source'?",
    "prompt_generator.m=4": "there is no option 'prompt_generator.m'; ",
    "prompt_filters.length.min_word=3": "'prompt_filters.length.min_word'; did you mean 'min_words'?",
    "sampler.temprature=1": "there is no option 'sampler.temprature'; did you mean 'temperature'?",
    "candidate_filters=[length] candidate_filters.length.x=1": "there is no option 'candidate_filters.length.x'",
    "selector.margn=1": "there is no option 'selector.margn'; did you mean 'margin'?",
    "pair_filters=[length_ratio] pair_filters.length_ratio.x=1": "there is no option 'pair_filters.length_ratio.x'",
    "optimizer.betta=1": "there is no option 'optimizer.betta'; did you mean 'beta'?",
    "engine.thread=3": "there is no option 'engine.thread'; did you mean 'threads'?",
    "evaluators.oracle.x=1": "there is no option 'evaluators.oracle.x'; there are: none",
    "monitors.health.tie_warn=1": "there is no option 'monitors.health.tie_warn'; did you mean 'ties_warn'?",
    "judge=random judge.votes=3": "there is no option 'judge.votes'",
    # further kinds of options
    "optimizer.schedule=cosinus": "Invalid value 'cosinus', expected one of [linear, cosine, constant]",
    "optimizer.group_by_length=perhaps": "optimizer.group_by_length=perhaps: Value 'perhaps' is not a valid bool",
    "optimizer.lr=fast": "optimizer.lr=fast: Value 'fast' of type 'str' could not be converted to Float",
    "sampler.n=[1,2]": "sampler.n=[1, 2]: Value '[1, 2]' of type 'list' could not be converted to Integer",
    "runs_dir=[a]": "runs_dir=['a']: Cannot convert 'list' to string",
    "model.lora=8": "model.lora=8: Invalid type assigned: int is not a subclass of LoraOptions",
    "++seed=x": "seed=x: Value 'x' of type 'str' could not be converted to Integer",
    "++store={path:[1]}": "store.path=[1]: Cannot convert 'list' to string",
    "optimizer.warmup=1": "optimizer.warmup=1.0 is out of range: it must be below 1",
    "optimizer.beta=0": "optimizer.beta=0.0 is out of range: it must be above 0",
    "evaluation.top_p=0": "evaluation.top_p=0.0 is out of range: it must be above 0",
    "optimizer.batch_size=6 optimizer.gradient_accumulation=4": "batch_size=6 must be a multiple of gradient_accumula",
    "engine=null": "engine=null: takes one name, engine=NAME (server, transformers, vllm)",
    "+judge._partial_=true": "+judge._partial_=true: a config names a plugin, never code to call",
    "++hydra.callbacks={x:{a:1}}": "Hydra's callbacks run code named by a config; use a lifecycle plugin instead",
    # places where nothing can be written, not even by root
    "store.path=/dev/null/x": "the store /dev/null/x cannot be written (/dev/null is no folder); choose another folder "
    "with store.path=",
    "run_dir=/proc/x": "the run's folder /proc/x cannot be written (/proc: No such file or directory); choose another "
    "folder with run_dir=",
    "runs_dir=/dev/null": "(/dev/null is no folder); choose another folder with runs_dir=",
    "-m runs_dir=/proc/x seed=0,1": "choose another folder with runs_dir=",
}  # fmt: skip

LATE = {
    "optimizer.init_from=M9": "optimizer.init_from=M9: no model plays this role in iter-01; there are: base, M0, ",
    "optimizer.reference=judge": "optimizer.reference=judge: no model plays this role in iter-01",
    "judge.model=M2": "judge.model=M2: no model plays this role in iter-01",
    "sampler.model=M7": "sampler.model=M7: no model plays this role in iter-01",
    "prompt_generator.model=stf": "prompt_generator.model=stf: no model plays this role in iter-01",
    "evaluators=[elo] evaluators.elo.anchor=M9": "evaluators.elo.anchor=M9: no model plays this role; there are: ",
    "judge=metric": "judge=metric wants a metric or more: judge.metrics=[rouge_l]",
    "judge=metric judge.metrics=[length,rouge_l]": "metric=rouge_l: compares with human answers, and the prompts of "
    "prompt_generator=self_instruct have none: use prompt_generator=dataset, or other judge.metrics",
    "judge.rubric=reference_guided": "rubric reference_guided wants a reference answer, and the prompts of "
    "prompt_generator=self_instruct have none: use prompt_generator=dataset, or another judge.rubric",
    "judge.rubric=nowhere": "judge.rubric=nowhere: no such rubric; there are additive, micro, ",
    "data=jsonl data.path=/dev/null/x.jsonl": "data file /dev/null/x.jsonl: no such file",
    "model=hf model.path=/dev/null/x": "path=/dev/null/x: no such folder",
}
"""What only the last check can find; told when all else is right."""


@pytest.mark.parametrize(("command", "message"), WRONG.items(), ids=WRONG)
def test_a_wrong_configuration_is_refused_with_its_mend(refused, stop, command, message):
    told = refused(*command.split(), *stop)
    assert message in told
    assert told.count(message) == 1


@pytest.mark.parametrize(("command", "message"), LATE.items(), ids=LATE)
def test_what_only_the_last_check_can_find_is_refused_too(refused, command, message):
    assert message in refused(*command.split(), "dry_run=true")


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_has_its_misspelt_name_and_option_above(kind):
    typed = [part.lstrip("+") for command in WRONG for part in command.split()]
    assert any(part.startswith(f"{kind}=") for part in typed)
    assert any(part.startswith(f"{kind}.") for part in typed)


@dataclass
class NoOptions:
    """No options."""


@pytest.mark.parametrize(("kind", "chosen"), [("engine", "needy"), ("evaluators", "[needy]"), ("judge", "needy")])
def test_a_library_that_is_not_installed_is_missed_before_any_work(
    refused, tmp_path_factory, monkeypatch, kind, chosen
):
    site = tmp_path_factory.mktemp("site")
    (site / "needy_class.py").write_text("import a_library_that_nobody_has\nclass Needy: pass\n")
    monkeypatch.syspath_prepend(site)
    needy = Registered(Plugin("needy", "needy_class:Needy", NoOptions), "selfreward-needy 0.1")
    monkeypatch.setitem(registry().kinds[kind], "needy", [needy])
    told = refused(f"{kind}={chosen}")
    assert "\n" not in told
    assert f"{kind}=needy: 'needy' cannot be loaded from needy_class:Needy: " in told
    assert "No module named 'a_library_that_nobody_has'" in told
    assert "install it: pip install a_library_that_nobody_has" in told


def test_all_problems_are_told_at_once(refused):
    told = refused("selector=best_wrost", "sampler.n=0", "judge.vots=3", "seed=-1", "store.match=close", "iterations=x")
    assert told.startswith("6 problems:\n  1. ")
    for part in ("'best_worst'", "sampler.n=0", "'votes'", "seed=-1", "[content, exact]", "iterations=x"):
        assert part in told
    assert told.count("\n") == 6


def test_each_problem_is_told_once(refused):
    assert "\n" not in refused("judge=random", "evaluation.judge.votes=0")


@pytest.mark.parametrize("typed", ["evaluation.judge=length", "recipe.ift.judge=length"])
def test_a_mend_is_never_what_was_typed(typed):
    """A plain name where a plugin belongs is understood, or told how to be written."""
    run, told = None, ""
    try:
        run = run_config(["judge=random", typed])
    except UserError as problem:
        told = str(problem)
    assert f"with {typed.partition('=')[0]}=NAME" not in told
    if run:
        assert "length" in (run.options.evaluation.judge.name, run.choices["recipe"].config.ift.judge.name)


def test_an_option_of_a_filter_that_was_not_chosen_says_so(refused):
    told = refused("prompt_filters=[length]", "prompt_filters.rouge_l.threshold=0.3")
    assert re.search(r"prompt_filters=\[.*rouge_l", told), "the mend is to choose the filter"


# -------------------------------------------------------------------------------------------------- config is not code

CANARY = (
    "import logging, pathlib\npathlib.Path(__file__).with_name('ran').touch()\nclass Handler(logging.Handler): pass\n"
)
CALLBACK = "callbacks: {x: {_target_: canary.Handler}}"
LOGGING = "job_logging: {handlers: {x: {class: canary.Handler}}}"
ATTACKS = [
    # on the command line
    "judge._target_=canary.Handler",
    "++judge={_target_:canary.Handler}",
    "+x._args_=[1]",
    "+hydra.callbacks.x._target_=canary.Handler",
    "+hydra={callbacks:{x:{_target_:canary.Handler}}}",
    "hydra.launcher._target_=canary.Handler",
    "hydra.sweeper._target_=canary.Handler -m",
    "+hydra.job_logging.handlers.x={class:canary.Handler}",
    "+hydra.hydra_logging.handlers.x.class=canary.Handler",
    "+hydra.job_logging.formatters.x={class:canary.Handler}",
    # in a stranger's folder
    "--config-dir bad experiment=callback",
    "--config-dir=bad experiment=callback",
    "-cd bad experiment=callback",
    "--config-dir bad -m experiment=callback,logging",
    "--config-dir bad experiment=logging",
    "--config-dir bad experiment=logging --cfg hydra",
    "--config-dir bad experiment=launcher",
    "--config-dir worse model=hf",
    "--config-d worse model=hf",
    "--config-d=worse model=hf",
    "-cd=worse model=hf",
    "hydra.searchpath=[file://{here}/bad] experiment=callback",
    # another primary config
    "--config-path={here}/bad --config-name=primary",
    "-cp={here}/bad -cn=primary",
    "--config-dir=bad --config-name=primary",
    # a pickle
    "--experimental-rerun=bad/config.pickle",
]


class Touch:
    """Unpickling it imports the canary."""

    def __reduce__(self) -> tuple:
        return __import__, ("canary",)


@pytest.fixture
def bad_folder(tmp_path):
    """A config folder full of code to call, beside a module that leaves a file when it is imported."""
    (tmp_path / "canary.py").write_text(CANARY)
    for name, body in {
        "bad/experiment/callback": CALLBACK,
        "bad/experiment/logging": LOGGING,
        "bad/experiment/launcher": "launcher: {_target_: canary.Handler}",
        "bad/primary": CALLBACK,
        "worse/tuned/run/hf": CALLBACK,  # taken without being named
    }.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package _global_\nhydra:\n  {body}\n")
    (tmp_path / "bad" / "config.pickle").write_bytes(pickle.dumps(Touch()))
    return tmp_path


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_config_cannot_run_code(capsys, stop, bad_folder, monkeypatch, attack):
    monkeypatch.chdir(bad_folder)
    monkeypatch.syspath_prepend(bad_folder)
    monkeypatch.delitem(sys.modules, "canary", raising=False)
    arguments = attack.replace("{here}", str(bad_folder)).split()
    looking = "--cfg" in attack
    code = main([*arguments, *(() if looking or "primary" in attack or "rerun" in attack else stop)])
    out, err = capsys.readouterr()
    assert not (bad_folder / "ran").exists(), "code named by a config was run"
    if not looking:
        assert (code, out) == (2, "")
        assert err.startswith("selfreward: ")


def test_hydras_own_logging_and_launcher_may_be_set():
    assert run_config(["hydra/job_logging=disabled", "hydra/launcher=basic", "hydra.sweep.dir=x", "hydra.verbose=true"])


# -------------------------------------------------------------------------------------------------- verbs, flags, codes


def test_flags_go_before_overrides():
    assert _split(["a=b", "-m", "c=d,e"]) == (["-m"], ["a=b", "c=d,e"])
    assert _split(["a=b", "--cfg", "job", "c=d"]) == (["--cfg", "job"], ["a=b", "c=d"])
    assert _split(["--config-dir", "x", "a=b", "--info"]) == (["--config-dir", "x", "--info"], ["a=b"])
    assert _split(["-m", "--config-dir=x"]) == (["-m", "--config-dir=x"], [])
    assert _split([]) == ([], [])


def test_help_names_every_group_plugin_and_option_of_the_run(capsys):
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for kind in KINDS:
        assert f"{kind}=" in out
        assert all(name in out for name in registry().names(kind))
    assert all(name in out for name in registry().names("metric"))
    for option in ("iterations=2", "seed=0", "run_dir=", "runs_dir=", "store.path=", "store.match=", "evaluation.n="):
        assert option in out


@pytest.mark.parametrize("arguments", [["-h"], ["judge=random", "--help"], ["-m", "--help", "nonsense"]])
def test_help_is_given_wherever_it_is_asked_for(capsys, arguments):
    assert main(arguments) == 0
    assert "python -m selfreward" in capsys.readouterr().out


def test_version(capsys):
    import selfreward

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"selfreward {selfreward.__version__}\n"


def test_plugins_lists_all_groups_and_one_group_with_its_options(capsys):
    assert main(["plugins"]) == 0
    out = capsys.readouterr().out
    for kind in HOOKS:
        for name in registry().names(kind):
            assert re.search(rf"^  {name} ", out, re.MULTILINE)
    assert main(["plugins", "optimizer"]) == 0
    out = capsys.readouterr().out
    assert "beta=0.1  float" in out
    assert "brings best_worst" in out
    assert "llm_cot" not in out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("plugins judg", "there is no group 'judg'; did you mean 'judge'?"),
        ("plugins metrics", "there is no group 'metrics'; did you mean 'metric'?"),
        ("plugins x", "there is no group 'x'; there are: model, data, "),
        ("show", "usage: selfreward show RUN [PROMPT_ID]"),
        ("show a b c", "usage: selfreward show RUN [PROMPT_ID]"),
        ("show nowhere", "nowhere is not the folder of a run"),
    ],
)
def test_verbs_refuse_what_they_do_not_know(refused, command, message):
    assert message in refused(*command.split())


def test_the_composed_config_is_what_a_run_gets(cli):
    done = cli("judge.votes=5", "experiment=micro_fast", "--cfg", "job")
    assert (done.code, done.err) == (0, "")
    assert yaml.safe_load(done.out) == run_config(["judge.votes=5", "experiment=micro_fast"]).composed


def test_the_composed_config_shows_the_partner(here):
    done = here("selector=positive_only", "--cfg", "job")
    assert yaml.safe_load(done.out)["optimizer"]["name"] == "sft"


def test_a_mistake_is_told_in_the_same_way_when_only_looking(here):
    done = here("judge=llm_cott", "--cfg", "job")
    assert (done.code, done.out) == (2, "")
    assert "did you mean 'llm_cot'?" in done.err


def test_a_child_process_ends_with_the_code_and_one_line(cli, tmp_path):
    done = cli("sampler.n=0")
    assert done == (2, "", "selfreward: sampler.n=0 is out of range: it must be at least 1\n")
    assert not list(tmp_path.iterdir())


def test_the_traceback_is_there_for_who_asks(cli):
    done = cli("sampler.n=0", HYDRA_FULL_ERROR="1")
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.endswith("selfreward: sampler.n=0 is out of range: it must be at least 1\n")


def test_what_is_refused_last_leaves_nothing_behind(here, stop, tmp_path):
    done = here(*stop)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"selfreward: {stop[1]}: no *.safetensors weights in this folder\n"
    assert not list(tmp_path.iterdir())


def test_refused_jobs_of_a_sweep_are_all_told(here, tmp_path):
    done = here("optimizer=dpo", "-m", "selector=positive_only,demonstrations")
    assert done.code == 2
    assert "Traceback" not in done.err
    for selector in ("positive_only", "demonstrations"):
        assert f"selector={selector} writes demonstrations" in done.err
    assert {path.name for path in tmp_path.iterdir()} <= {"runs"}


def test_main_leaves_the_process_as_it_was(refused, stop, monkeypatch):
    for name, value in QUIET.items():  # which it sets where nobody else has
        monkeypatch.setenv(name, value)
    before = (list(sys.argv), dict(os.environ), Path.cwd())
    refused("sampler.n=0")
    refused("-m", "run_dir=x")
    refused(*stop)
    assert (sys.argv, dict(os.environ), Path.cwd()) == before


def test_a_sweep_lists_refused_jobs_runs_the_others_and_compares_them(here):
    small = [
        "data.ift=8", "data.eft=4", "data.tasks=4", "data.evaluation=4", "data.judge_evaluation=2", "iterations=1",
        "prompt_generator.n=4", "evaluators=[oracle]", "judge=random",
    ]  # fmt: skip
    done = here(*small, "optimizer=dpo", "-m", "selector=best_worst,random_pair,positive_only")
    assert done.code == 2
    assert "selector=positive_only writes demonstrations, optimizer=dpo reads preferences" in done.err
    assert "Traceback" not in done.err
    table = done.out[done.out.rindex("what") :].splitlines()
    assert table[0].split()[:4] == ["what", "model", "seeds", "true_score"]
    assert [line.split()[:2] for line in table if line.startswith("selector") and " M2 " in line] == [
        ["selector=best_worst", "M2"],
        ["selector=random_pair", "M2"],
    ]


def test_a_dry_run_of_a_sweep_prints_every_plan(here):
    done = here("dry_run=true", "-m", "seed=0,1")
    assert (done.code, done.err.count("selfreward:")) == (0, 0), done.err
    assert done.out.count("to do: 25 of 25 steps") == 2


def test_the_joblib_launcher_runs_jobs_in_parallel_on_one_store(cli):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    small = [
        "data.ift=8", "data.eft=4", "data.tasks=4", "data.evaluation=4", "data.judge_evaluation=2", "iterations=1",
        "prompt_generator.n=4", "evaluators=[oracle]", "monitors=[]",
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
    ]  # fmt: skip
    done = cli(*small, "-m", "judge=random,length")
    assert done.code == 0, done.err
    # whichever job comes first makes what both need; the other waits for it and says that it came from the store
    shared = [line for line in done.out.splitlines() if line.startswith("  M1 answers")]
    assert sorted("reused from the store" in line for line in shared) == [False, True]
    assert {"judge=random", "judge=length"} <= set(done.out[done.out.rindex("what") :].split())
