"""What is shipped composes; what is chosen reaches the plugin; who was not named comes along only when needed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import yaml

from selfreward import Rubric, UserError
from selfreward.core.cli import run_config as compose
from selfreward.core.config.kinds import KINDS, LIST_KINDS
from selfreward.core.config.registry import registry
from selfreward.core.config.resolve import RunConfig, partner_override, resolve
from selfreward.core.contracts.options import cross_problems, range_problems

CONF = Path(__file__).parents[3] / "conf"
PLUGINS = [(kind, name) for kind in KINDS for name in registry().names(kind)]
NEED_A_PATH = {
    "data": ["hh_rlhf", "jsonl", "oasst", "pandalm", "self_instruct", "table"],
    "evaluators": ["alpaca_eval", "hhh", "mt_bench", "truthfulqa_mc1", "vicuna"],
}
MUST_BE_GIVEN = {
    ("model", "hf"): ["model.path=some/model"],
    ("evaluators", "lm_eval"): ["evaluators.lm_eval.tasks=[hellaswag]"],
    **{("data", name): ["data.path=some.jsonl"] for name in NEED_A_PATH["data"]},
    **{("evaluators", name): [f"evaluators.{name}.path=some.json"] for name in NEED_A_PATH["evaluators"]},
}
"""What has no default, since nobody can guess it."""
TUNED = [
    (path.stem, group, plugin, values)
    for path in sorted(CONF.glob("tuned/*.yaml"))
    for group, plugins in yaml.safe_load(path.read_text("utf-8")).items()
    for plugin, values in ([("", plugins)] if group == "run" else plugins.items())
]
"""(model, group, plugin, values)"""
EXPERIMENTS = sorted(path.stem for path in CONF.glob("experiment/*.yaml"))


def run_config(overrides: list[str]) -> RunConfig:
    """The checked config; each is composed once."""
    return composed_once(tuple(overrides))


composed_once = cache(compose)


def stem(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def flat(values: dict, above: str = "") -> dict:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    leaves = {}
    for key, value in values.items():
        leaves |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return leaves


def option(config: object, path: str) -> object:
    """The value at a dotted path of a config dataclass, through the plugins chosen for nested rounds."""
    chosen: object = None
    for name in path.split("."):
        chosen = getattr(chosen, name) if name == "name" and chosen is not None else getattr(config, name)
        config = getattr(chosen, "config", chosen)
    return config


# ---------------------------------------------------------------------------------------------------- what is shipped


def test_the_defaults_are_a_run():
    run = run_config([])
    assert set(run.choices) == set(KINDS) - set(LIST_KINDS)
    assert set(run.lists) == set(LIST_KINDS)
    assert run.brought == ""


@pytest.mark.parametrize(("kind", "name"), PLUGINS, ids=[f"{kind}={name}" for kind, name in PLUGINS])
def test_every_plugin_composes_by_its_name(kind, name):
    chosen = f"[{name}]" if kind in LIST_KINDS else name
    run = run_config([f"{kind}={chosen}", *MUST_BE_GIVEN.get((kind, name), [])])
    [choice] = run.lists[kind] if kind in LIST_KINDS else [run.choices[kind]]
    assert choice.name == name
    assert type(choice.config) is registry().get(kind, name).config
    assert not [*range_problems(choice.config, ""), *cross_problems(choice.config, "")]


@pytest.mark.parametrize("where", MUST_BE_GIVEN, ids="=".join)
def test_what_has_no_default_is_asked_for(where):
    kind, name = where
    with pytest.raises(UserError, match=rf"{kind}(\.{name})?: .*(is not set|must name)"):
        run_config([f"{kind}=[{name}]" if kind in LIST_KINDS else f"{kind}={name}"])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(name):
    run = run_config([f"experiment={name}"])
    assert run.experiment == name
    written = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text("utf-8"))
    swept = written.pop("hydra", {}).get("sweeper", {}).get("params", {})
    for key, values in swept.items():
        for value in str(values).split(","):
            assert run_config([f"experiment={name}", f"{key}={value}"]).experiment == name
    written = {key: value for key, value in written.items() if key != "defaults"}
    for path, value in flat({kind: written.pop(kind) for kind in [*written] if kind in KINDS}).items():
        kind, _, rest = path.partition(".")
        assert option(run.choices[kind].config, rest) == value, path
    for path, value in flat(written).items():
        assert option(run.options, path) == value, path


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("ablation/*.yaml")))
def test_every_ablation_changes_the_run(name):
    plain, changed = run_config([]), run_config([f"ablation={name}"])
    assert changed.ablation == name
    assert (changed.composed == plain.composed) == (name == "as_is")
    assert not changed.brought  # both stages are named, so nothing is left to a partner


@pytest.mark.parametrize(("model", "kind", "plugin", "values"), TUNED, ids=["-".join(each[:3]) for each in TUNED])
def test_all_tuned_values_arrive(model, kind, plugin, values):
    assert model in registry().names("model")
    if kind == "run":
        composed = run_config([f"model={model}"]).options
    else:
        assert plugin in registry().names(kind)
        composed = run_config([f"model={model}", f"{kind}={plugin}"]).choices[kind].config
    assert values
    for name, value in flat(values).items():
        assert option(composed, name) == value, name


@pytest.mark.parametrize("path", sorted(CONF.glob("loop/*.yaml")), ids=stem)
def test_what_a_recipe_wants_of_the_loop_arrives_and_can_be_changed(path):
    values = flat(yaml.safe_load(path.read_text("utf-8")))
    run = run_config([f"recipe={path.stem}"])
    assert values
    for name, value in values.items():
        kind, _, rest = name.partition(".")
        assert option(run.choices[kind].config, rest) == value if rest else getattr(run.options, name) == value, name
    assert run_config([f"recipe={path.stem}", "sampler.temperature=0.3"]).choices["sampler"].config.temperature == 0.3


def test_tuned_values_are_for_their_model_only():
    default = registry().get("sampler", "nucleus").config()
    run = run_config(["model=hf", "model.path=x"])
    assert run.choices["sampler"].config == default
    assert run_config([]).choices["sampler"].config != default


@pytest.mark.parametrize("path", sorted(CONF.glob("rubric/*.yaml")), ids=stem)
def test_every_rubric_loads_under_its_name(path):
    rubric = Rubric.load(path.stem)
    assert rubric.name == path.stem
    assert rubric.read(rubric.verdict.format(score=f"{rubric.high:g}", winner=rubric.choices[0])) == rubric.high


@pytest.mark.parametrize("path", [p for kind in KINDS for p in sorted(CONF.glob(f"{kind}/*.yaml"))], ids=stem)
def test_a_groups_file_adds_to_a_plugin_of_that_name(path):
    assert path.stem in registry().names(path.parent.name)
    defaults = yaml.safe_load(path.read_text("utf-8"))["defaults"]
    assert defaults[0] == f"/schema/{path.parent.name}/{path.stem}@_here_"


def test_every_yaml_file_is_one_of_those_above():
    folders = {path.relative_to(CONF).parts[0] for path in CONF.rglob("*.yaml") if path.parent != CONF}
    assert folders <= {"ablation", "experiment", "loop", "rubric", "tuned", *KINDS}
    assert [path.name for path in CONF.glob("*.yaml")] == ["config.yaml"]


# ------------------------------------------------------------------------------------------------ what reaches a plugin


def test_the_command_line_beats_the_experiment_which_beats_the_tuned_values():
    def sizes(*overrides: str) -> tuple[int, int]:
        run = run_config(list(overrides))
        return run.choices["prompt_generator"].config.n, run.choices["sampler"].config.max_new_tokens

    tuned = yaml.safe_load((CONF / "tuned/micro.yaml").read_text())["prompt_generator"]["self_instruct"]["n"]
    fast = yaml.safe_load((CONF / "experiment/micro_fast.yaml").read_text())["prompt_generator"]["n"]
    longest = sizes()[1]
    assert len({tuned, fast, 7}) == 3
    assert sizes() == (tuned, longest)
    assert sizes("experiment=micro_fast") == (fast, longest)
    assert sizes("experiment=micro_fast", "prompt_generator.n=7") == (7, longest)
    assert sizes("prompt_generator.n=7", "experiment=micro_fast", "sampler.max_new_tokens=9") == (7, 9)


def test_options_of_a_seed_round_and_of_the_loop_are_apart():
    before, after = run_config([]), run_config(["recipe.ift.optimizer.lr=1e-5", "optimizer.lr=2e-5", "judge=random"])
    rounds = after.choices["recipe"].config
    assert rounds.ift.optimizer.config.lr == 1e-5
    assert after.choices["optimizer"].config.lr == 2e-5
    assert rounds.eft == before.choices["recipe"].config.eft
    assert (rounds.ift.judge.name, rounds.eft.judge.name) == ("human_rank", "human_rank")
    assert rounds.ift.optimizer.name == "sft"


def test_a_seed_rounds_plugin_is_chosen_by_name():
    rounds = run_config(["recipe.ift.judge.name=random"]).choices["recipe"].config
    assert (rounds.ift.judge.name, rounds.eft.judge.name) == ("random", "human_rank")


def test_a_list_group_takes_any_number_in_order():
    assert run_config(["evaluators=[]"]).lists["evaluators"] == ()
    run = run_config(["prompt_filters=[rouge_l,length]", "prompt_filters.rouge_l.threshold=0.5"])
    assert [choice.name for choice in run.lists["prompt_filters"]] == ["rouge_l", "length"]
    assert run.lists["prompt_filters"][0].config.threshold == 0.5


def test_types_are_those_of_the_dataclass():
    run = run_config(["model.dtype=bfloat16", "sampler.temperature=1", "judge.rubric=null", "model.lora.r=8"])
    model = run.choices["model"].config
    assert (model.dtype.name, model.lora.r) == ("bfloat16", 8)
    assert isinstance(run.choices["sampler"].config.temperature, float)
    assert run.choices["judge"].config.rubric is None


def test_the_saved_config_keeps_environment_variables_unresolved(monkeypatch):
    monkeypatch.setenv("SELFREWARD_STORE", "/secret/place")
    run = compose([])
    assert run.options.store.path == "/secret/place"
    assert "/secret/place" not in str(run.composed)
    assert "${oc.env:SELFREWARD_STORE" in run.composed["store"]["path"]


def test_evaluators_have_a_judge_where_the_loops_own_runs_no_model():
    run = run_config(["judge=random"])
    assert run.options.evaluation.judge.name == "llm_cot"


def test_another_judge_can_be_chosen_for_the_evaluators():
    assert run_config(["judge=random", "evaluation.judge=length"]).options.evaluation.judge.name == "length"


# ------------------------------------------------------------------------------------------------------------ partners


@pytest.mark.parametrize(
    ("overrides", "selector", "optimizer", "brought"),
    [
        ("", "best_worst", "dpo", ""),
        ("selector=positive_only", "positive_only", "sft", "optimizer=sft"),
        ("optimizer=sft", "positive_only", "sft", "selector=positive_only"),
        ("selector=demonstrations", "demonstrations", "sft", "optimizer=sft"),
        ("optimizer=ipo", "best_worst", "ipo", ""),
        ("selector=best_worst", "best_worst", "dpo", ""),
        ("selector=best_worst optimizer=ipo", "best_worst", "ipo", ""),
        ("selector=demonstrations optimizer=sft", "demonstrations", "sft", ""),
        ("experiment=micro_fast optimizer=sft", "positive_only", "sft", "selector=positive_only"),
        ("experiment=srlm_paper selector=best_worst", "best_worst", "dpo", ""),
    ],
)
def test_the_partner_comes_along_only_where_it_is_needed(overrides, selector, optimizer, brought):
    run = run_config(overrides.split())
    assert (run.choices["selector"].name, run.choices["optimizer"].name) == (selector, optimizer)
    assert run.brought.endswith(brought)
    assert bool(run.brought) == bool(brought)


def test_options_reach_the_partner_that_was_brought():
    assert run_config(["selector=positive_only", "optimizer.lr=3e-5"]).choices["optimizer"].config.lr == 3e-5
    assert run_config(["optimizer=sft", "selector.threshold=4.5"]).choices["selector"].config.threshold == 4.5


def test_the_partner_has_its_own_tuned_values():
    tuned = yaml.safe_load((CONF / "tuned/micro.yaml").read_text())["optimizer"]["sft"]
    config = run_config(["selector=positive_only"]).choices["optimizer"].config
    assert {name: getattr(config, name) for name in tuned} == tuned


def test_a_seed_round_never_flips_the_loops_optimizer():
    run = run_config(["recipe.ift.optimizer.lr=1e-4"])
    assert (run.choices["recipe"].config.ift.optimizer.name, run.choices["optimizer"].name) == ("sft", "dpo")


def test_partners_are_decided_by_what_was_named():
    chosen = {"selector": "positive_only", "optimizer": "dpo"}
    assert partner_override({"selector"}, chosen) == "optimizer=sft"
    assert partner_override({"optimizer"}, chosen) == "selector=best_worst"
    assert partner_override({"selector", "optimizer"}, chosen) is None
    assert partner_override(set(), chosen) is None
    assert partner_override({"selector"}, {"selector": "nobody", "optimizer": "dpo"}) is None


# -------------------------------------------------------------------------------------- the last gate, whoever composed


def composed(**changes: object) -> object:
    from omegaconf import OmegaConf

    return OmegaConf.merge(OmegaConf.create(dict(run_config([]).composed)), OmegaConf.create(changes))


def test_a_saved_config_resolves_to_the_same_run():
    first = run_config(["judge.votes=5", "recipe.eft.source=none"])
    from omegaconf import OmegaConf

    again = resolve(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(dict(first.composed)))))
    assert (again.choices, again.lists, again.options) == (first.choices, first.lists, first.options)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"judge": {"_target_": "os.system"}}, "judge._target_: a config names a plugin, never code to call"),
        ({"a": [{"b": {"()": "os.system"}}]}, r"a\[0\].b.\(\): a config names a plugin"),
        ({"recipe": {"ift": {"judge": {"_args_": [1]}}}}, "recipe.ift.judge._args_: a config names a plugin"),
        ({"judge": {"name": "nobody"}}, "there is no judge 'nobody'"),
        ({"sampler": {"n": "${nowhere}"}}, "sampler.n: .*nowhere.* not found"),
        ({"evaluators": {"oracle": {"naem": 1}}}, "there is no option 'evaluators.oracle.naem'"),
    ],
)
def test_what_slips_past_hydra_is_still_refused(changes, problem):
    with pytest.raises(UserError, match=problem):
        resolve(composed(**changes))


# ---------------------------------------------------------------------------------------- plugins in a plugin's options


@pytest.mark.parametrize(
    "members",
    [
        "judge.members={a:{name:llm_cot,votes:5},length:{}}",
        "judge.members={a:{name:llm_cot,votes:5},length:length}",
        "judge.members={a:{name:llm_cot,votes:5},length:null}",
    ],
)
def test_members_are_plugins_with_options_of_their_own(members):
    judge = run_config(["judge=ensemble", members]).choices["judge"]
    assert {name: member.name for name, member in judge.members.items()} == {"a": "llm_cot", "length": "length"}
    assert judge.members["a"].config.votes == 5
    built = judge.build()
    assert list(built.members) == ["a", "length"]
    assert built.members["a"].config is judge.members["a"].config


def test_members_may_be_a_list_of_names_or_come_one_by_one():
    for overrides in (
        ["judge.members=[llm_cot,length]"],
        ["judge.members.llm_cot.votes=3", "judge.members.length=length"],
    ):
        judge = run_config(["judge=ensemble", *overrides]).choices["judge"]
        assert list(judge.members) == ["llm_cot", "length"]
    assert run_config(["judge=ensemble"]).choices["judge"].members == {}


def test_what_is_wrong_with_members_is_told_with_its_place():
    with pytest.raises(UserError) as caught:
        compose(
            ["judge=ensemble", "judge.members={a:{name:llm_cot,votess:5,votes:0},b:llm_cott}", "judge.ranges.c=[0,1]"]
        )
    assert caught.value.problems == [
        "judge: ranges.c: no member has this name (a, b)",
        "there is no option 'judge.members.a.votess'; did you mean 'votes'?",
        "judge.members.a.votes=0 is out of range: it must be at least 1",
        "judge.members.b: there is no judge 'llm_cott'; did you mean 'llm_cot'?",
    ]
    with pytest.raises(UserError, match=r"judge\.members=7: takes a list of names, or NAME: \{name: plugin"):
        compose(["judge=ensemble", "judge.members=7"])
