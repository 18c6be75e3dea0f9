"""The built-in plugins, announced through the same hooks as anybody's.

Nothing heavy is imported here: a config dataclass is enough to list a plugin and to check its options.
"""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.candidate_filters.length import LengthConfig as CandidateLengthConfig
from selfreward.plugins.data.jsonl import JsonlConfig
from selfreward.plugins.data.oasst import OasstConfig
from selfreward.plugins.engines.transformers import TransformersConfig
from selfreward.plugins.evaluators.head_to_head import HeadToHeadConfig
from selfreward.plugins.evaluators.judge_agreement import JudgeAgreementConfig
from selfreward.plugins.evaluators.oracle import OracleConfig as OracleEvaluatorConfig
from selfreward.plugins.judges.human_rank import HumanRankConfig
from selfreward.plugins.judges.length import LengthConfig as LengthJudgeConfig
from selfreward.plugins.judges.llm_cot import LlmCotConfig
from selfreward.plugins.judges.oracle import OracleConfig as OracleJudgeConfig
from selfreward.plugins.judges.random_score import RandomConfig
from selfreward.plugins.models.hf import HuggingFaceConfig
from selfreward.plugins.monitors.health import HealthConfig
from selfreward.plugins.monitors.report import ReportConfig
from selfreward.plugins.optimizers.preference import DpoConfig, IpoConfig
from selfreward.plugins.optimizers.sft import SftConfig
from selfreward.plugins.pair_filters.length_ratio import LengthRatioConfig
from selfreward.plugins.prompt_filters.length import LengthConfig as PromptLengthConfig
from selfreward.plugins.prompt_filters.rouge_l import RougeLConfig
from selfreward.plugins.prompt_generators.dataset import DatasetConfig
from selfreward.plugins.prompt_generators.self_instruct import SelfInstructConfig
from selfreward.plugins.recipes.self_rewarding import SelfRewardingConfig
from selfreward.plugins.samplers.human import HumanConfig
from selfreward.plugins.samplers.nucleus import NucleusConfig
from selfreward.plugins.selectors.best_worst import BestWorstConfig
from selfreward.plugins.selectors.demonstrations import DemonstrationsConfig
from selfreward.plugins.selectors.positive_only import PositiveOnlyConfig
from selfreward.plugins.selectors.random_pair import RandomPairConfig

_HERE = "selfreward.plugins"
_PAPER = "arXiv:2401.10020"


@hookimpl
def selfreward_prompt_generators() -> list[Plugin]:
    """Stage 1."""
    at = f"{_HERE}.prompt_generators"
    return [
        Plugin("self_instruct", f"{at}.self_instruct:SelfInstruct", SelfInstructConfig, f"{_PAPER} §2.2"),
        Plugin("dataset", f"{at}.dataset:Dataset", DatasetConfig, f"{_PAPER} §2.1"),
    ]


@hookimpl
def selfreward_samplers() -> list[Plugin]:
    """Stage 2."""
    at = f"{_HERE}.samplers"
    return [
        Plugin("nucleus", f"{at}.nucleus:Nucleus", NucleusConfig, "arXiv:1904.09751 §3.1"),
        Plugin("human", f"{at}.human:Human", HumanConfig, f"{_PAPER} §2.1"),
    ]


@hookimpl
def selfreward_judges() -> list[Plugin]:
    """Stage 3."""
    at = f"{_HERE}.judges"
    return [
        Plugin("llm_cot", f"{at}.llm_cot:LlmCot", LlmCotConfig, f"{_PAPER} §2.2, figure 2"),
        Plugin("human_rank", f"{at}.human_rank:HumanRank", HumanRankConfig, f"{_PAPER} §2.1"),
        Plugin("random", f"{at}.random_score:Random", RandomConfig, "control: knows nothing"),
        Plugin("length", f"{at}.length:Length", LengthJudgeConfig, "control: the longer answer wins"),
        Plugin("oracle", f"{at}.oracle:Oracle", OracleJudgeConfig, "control: the ground truth, an upper bound"),
    ]


@hookimpl
def selfreward_selectors() -> list[Plugin]:
    """Stage 4, each with the optimizer it brings along."""
    at, source, seeds = f"{_HERE}.selectors", f"{_PAPER} §2.3", f"{_PAPER} §2.1"
    return [
        Plugin("best_worst", f"{at}.best_worst:BestWorst", BestWorstConfig, source, partner="dpo"),
        Plugin("positive_only", f"{at}.positive_only:PositiveOnly", PositiveOnlyConfig, source, partner="sft"),
        Plugin("demonstrations", f"{at}.demonstrations:Demonstrations", DemonstrationsConfig, seeds, partner="sft"),
        Plugin(
            "random_pair", f"{at}.random_pair:RandomPair", RandomPairConfig, "control: scores ignored", partner="dpo"
        ),
    ]


@hookimpl
def selfreward_optimizers() -> list[Plugin]:
    """Stage 5, each with the selector it brings along."""
    at = f"{_HERE}.optimizers"
    return [
        Plugin("sft", f"{at}.sft:Sft", SftConfig, f"{_PAPER} §2.1", partner="positive_only"),
        Plugin("dpo", f"{at}.preference:Dpo", DpoConfig, "arXiv:2305.18290 §4", partner="best_worst"),
        Plugin("ipo", f"{at}.preference:Ipo", IpoConfig, "arXiv:2310.12036 §5", partner="best_worst"),
    ]


@hookimpl
def selfreward_prompt_filters() -> list[Plugin]:
    """Which prompts are dropped."""
    at, source = f"{_HERE}.prompt_filters", "arXiv:2212.10560 §2.2"
    return [
        Plugin("rouge_l", f"{at}.rouge_l:RougeL", RougeLConfig, source),
        Plugin("length", f"{at}.length:Length", PromptLengthConfig, source),
    ]


@hookimpl
def selfreward_candidate_filters() -> list[Plugin]:
    """Which candidates are dropped."""
    return [Plugin("length", f"{_HERE}.candidate_filters.length:Length", CandidateLengthConfig)]


@hookimpl
def selfreward_pair_filters() -> list[Plugin]:
    """Which training rows are dropped."""
    at, source = f"{_HERE}.pair_filters", f"against the growth in {_PAPER} §3.2.1"
    return [Plugin("length_ratio", f"{at}.length_ratio:LengthRatio", LengthRatioConfig, source)]


@hookimpl
def selfreward_evaluators() -> list[Plugin]:
    """What is measured."""
    at, source = f"{_HERE}.evaluators", f"{_PAPER} §3.1.2"
    return [
        Plugin("oracle", f"{at}.oracle:Oracle", OracleEvaluatorConfig, "the data's ground truth"),
        Plugin("judge_agreement", f"{at}.judge_agreement:JudgeAgreement", JudgeAgreementConfig, source),
        Plugin("head_to_head", f"{at}.head_to_head:HeadToHead", HeadToHeadConfig, source),
    ]


@hookimpl
def selfreward_monitors() -> list[Plugin]:
    """Who watches a run."""
    at = f"{_HERE}.monitors"
    return [
        Plugin("health", f"{at}.health:Health", HealthConfig, f"{_PAPER} §3.2"),
        Plugin("report", f"{at}.report:Report", ReportConfig),
    ]


@hookimpl
def selfreward_recipes() -> list[Plugin]:
    """Which rounds are run."""
    at = f"{_HERE}.recipes"
    return [Plugin("self_rewarding", f"{at}.self_rewarding:SelfRewarding", SelfRewardingConfig, f"{_PAPER} §2.4")]


@hookimpl
def selfreward_data() -> list[Plugin]:
    """Seed prompts, human answers, held-out sets."""
    at = f"{_HERE}.data"
    return [
        Plugin("jsonl", f"{at}.jsonl:Jsonl", JsonlConfig),
        Plugin("oasst", f"{at}.oasst:Oasst", OasstConfig, "arXiv:2304.07327"),
    ]


@hookimpl
def selfreward_models() -> list[Plugin]:
    """What is aligned."""
    return [Plugin("hf", f"{_HERE}.models.hf:HuggingFace", HuggingFaceConfig)]


@hookimpl
def selfreward_engines() -> list[Plugin]:
    """How a model is run."""
    return [Plugin("transformers", f"{_HERE}.engines.transformers:TransformersEngine", TransformersConfig)]
