"""The built-in plugins, announced through the same hooks as anybody's.

Nothing heavy is imported here: a config dataclass is enough to list a plugin and to check its options.
"""

from __future__ import annotations

from selfreward import Plugin, hookimpl
from selfreward.plugins.candidate_filters.length import LengthConfig as CandidateLengthConfig
from selfreward.plugins.data.hh_rlhf import HhRlhfConfig
from selfreward.plugins.data.none import NoDataConfig
from selfreward.plugins.data.oasst import OasstConfig
from selfreward.plugins.data.pandalm import PandaLmConfig
from selfreward.plugins.data.self_instruct import SelfInstructDataConfig
from selfreward.plugins.data.table import TableConfig
from selfreward.plugins.engines.server import ServerConfig
from selfreward.plugins.engines.transformers import TransformersConfig
from selfreward.plugins.engines.vllm import VllmConfig
from selfreward.plugins.evaluators.alpaca_eval import AlpacaEvalConfig
from selfreward.plugins.evaluators.elo import EloConfig
from selfreward.plugins.evaluators.fastchat import FastChatConfig
from selfreward.plugins.evaluators.head_to_head import HeadToHeadConfig
from selfreward.plugins.evaluators.hhh import HhhConfig
from selfreward.plugins.evaluators.judge_agreement import JudgeAgreementConfig
from selfreward.plugins.evaluators.lm_eval import LmEvalConfig
from selfreward.plugins.evaluators.lm_loss import LmLossConfig
from selfreward.plugins.evaluators.oracle import OracleConfig as OracleEvaluatorConfig
from selfreward.plugins.evaluators.preference_accuracy import PreferenceAccuracyConfig
from selfreward.plugins.evaluators.reward_accuracy import RewardAccuracyConfig
from selfreward.plugins.evaluators.truthfulqa_mc1 import TruthfulQaConfig
from selfreward.plugins.judges.ensemble import EnsembleConfig
from selfreward.plugins.judges.human_rank import HumanRankConfig
from selfreward.plugins.judges.implicit import ImplicitConfig
from selfreward.plugins.judges.length import LengthConfig as LengthJudgeConfig
from selfreward.plugins.judges.llm_cot import LlmCotConfig
from selfreward.plugins.judges.llm_expected import LlmExpectedConfig
from selfreward.plugins.judges.metric import MetricConfig
from selfreward.plugins.judges.oracle import OracleConfig as OracleJudgeConfig
from selfreward.plugins.judges.pairwise import PairwiseConfig
from selfreward.plugins.judges.random_score import RandomConfig
from selfreward.plugins.judges.reward_model import RewardModelConfig as RewardModelJudgeConfig
from selfreward.plugins.metrics.bleu import BleuConfig
from selfreward.plugins.metrics.chrf import ChrfConfig
from selfreward.plugins.metrics.exact_match import ExactMatchConfig
from selfreward.plugins.metrics.length import LengthConfig as LengthMetricConfig
from selfreward.plugins.metrics.rouge import RougeConfig
from selfreward.plugins.models.hf import HuggingFaceConfig
from selfreward.plugins.monitors.health import HealthConfig
from selfreward.plugins.monitors.report import ReportConfig
from selfreward.plugins.optimizers.group_relative import GrpoConfig, RlooConfig
from selfreward.plugins.optimizers.kto import KtoConfig
from selfreward.plugins.optimizers.ppo_options import PpoConfig
from selfreward.plugins.optimizers.preference import DpoConfig, IpoConfig, RpoConfig, SppoConfig
from selfreward.plugins.optimizers.reference_free import OrpoConfig, SimpoConfig
from selfreward.plugins.optimizers.reward_model import RewardModelConfig
from selfreward.plugins.optimizers.sft import SftConfig
from selfreward.plugins.pair_filters.length_ratio import LengthRatioConfig
from selfreward.plugins.pair_filters.score_balance import ScoreBalanceConfig
from selfreward.plugins.prompt_filters.contamination import ContaminationConfig
from selfreward.plugins.prompt_filters.keywords import KeywordsConfig
from selfreward.plugins.prompt_filters.length import LengthConfig as PromptLengthConfig
from selfreward.plugins.prompt_filters.near_duplicate import NearDuplicateConfig
from selfreward.plugins.prompt_filters.rouge_l import RougeLConfig
from selfreward.plugins.prompt_generators.dataset import DatasetConfig
from selfreward.plugins.prompt_generators.self_instruct import SelfInstructConfig
from selfreward.plugins.recipes.none import NoRoundsConfig
from selfreward.plugins.recipes.rlhf import RlhfConfig
from selfreward.plugins.recipes.self_rewarding import SelfRewardingConfig
from selfreward.plugins.samplers.human import HumanConfig
from selfreward.plugins.samplers.nucleus import NucleusConfig
from selfreward.plugins.selectors.agreement import AgreementConfig
from selfreward.plugins.selectors.all_pairs import AllPairsConfig
from selfreward.plugins.selectors.best_worst import BestWorstConfig
from selfreward.plugins.selectors.demonstrations import DemonstrationsConfig
from selfreward.plugins.selectors.length_controlled import LengthControlledConfig
from selfreward.plugins.selectors.positive_only import PositiveOnlyConfig
from selfreward.plugins.selectors.prompts import PromptsConfig
from selfreward.plugins.selectors.random_pair import RandomPairConfig
from selfreward.plugins.selectors.scored import ScoredConfig

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
        Plugin("llm_expected", f"{at}.llm_expected:LlmExpected", LlmExpectedConfig, "arXiv:2303.16634 §2"),
        Plugin("pairwise", f"{at}.pairwise:Pairwise", PairwiseConfig, "arXiv:2306.05685 §3"),
        Plugin("ensemble", f"{at}.ensemble:Ensemble", EnsembleConfig, "arXiv:2404.18796"),
        Plugin("reward_model", f"{at}.reward_model:RewardModel", RewardModelJudgeConfig, "arXiv:2009.01325 §3.4"),
        Plugin("implicit", f"{at}.implicit:Implicit", ImplicitConfig, "arXiv:2305.18290 §5.1, arXiv:2406.09760"),
        Plugin("metric", f"{at}.metric:MetricJudge", MetricConfig, "arXiv:2210.01241 §3"),
        Plugin("human_rank", f"{at}.human_rank:HumanRank", HumanRankConfig, f"{_PAPER} §2.1"),
        Plugin("random", f"{at}.random_score:Random", RandomConfig, "control: knows nothing"),
        Plugin("length", f"{at}.length:Length", LengthJudgeConfig, "control: the longer answer wins"),
        Plugin("oracle", f"{at}.oracle:Oracle", OracleJudgeConfig, "control: the ground truth, an upper bound"),
    ]


@hookimpl
def selfreward_metrics() -> list[Plugin]:
    """What ``judge=metric`` adds up."""
    at, rouge = f"{_HERE}.metrics", "Lin 2004"
    return [
        Plugin("rouge_1", f"{at}.rouge:Rouge1", RougeConfig, rouge),
        Plugin("rouge_2", f"{at}.rouge:Rouge2", RougeConfig, rouge),
        Plugin("rouge_l", f"{at}.rouge:RougeL", RougeConfig, rouge),
        Plugin("bleu", f"{at}.bleu:Bleu", BleuConfig, "Papineni et al. 2002"),
        Plugin("chrf", f"{at}.chrf:Chrf", ChrfConfig, "Popović 2015"),
        Plugin("exact_match", f"{at}.exact_match:ExactMatch", ExactMatchConfig, "arXiv:1606.05250 §6.1"),
        Plugin("length", f"{at}.length:Length", LengthMetricConfig),
    ]


@hookimpl
def selfreward_selectors() -> list[Plugin]:
    """Stage 4, each with the optimizer it brings along."""
    at, source, seeds = f"{_HERE}.selectors", f"{_PAPER} §2.3", f"{_PAPER} §2.1"
    return [
        Plugin("best_worst", f"{at}.best_worst:BestWorst", BestWorstConfig, source, partner="dpo"),
        Plugin("positive_only", f"{at}.positive_only:PositiveOnly", PositiveOnlyConfig, source, partner="sft"),
        Plugin(
            "length_controlled",
            f"{at}.length_controlled:LengthControlled",
            LengthControlledConfig,
            "arXiv:2407.19594 §2.2",
            partner="dpo",
        ),
        Plugin(
            "all_pairs", f"{at}.all_pairs:AllPairs", AllPairsConfig, "arXiv:2203.02155 §3.5", partner="reward_model"
        ),
        Plugin("agreement", f"{at}.agreement:Agreement", AgreementConfig, f"{_PAPER} §3.1.1", partner="sft"),
        Plugin("demonstrations", f"{at}.demonstrations:Demonstrations", DemonstrationsConfig, seeds, partner="sft"),
        Plugin("prompts", f"{at}.prompts:Prompts", PromptsConfig, "arXiv:2203.02155 §3.2", partner="ppo"),
        Plugin("scored", f"{at}.scored:ScoredAnswers", ScoredConfig, "arXiv:2305.13735 §2.3", partner="ppo"),
        Plugin(
            "random_pair", f"{at}.random_pair:RandomPair", RandomPairConfig, "control: scores ignored", partner="dpo"
        ),
    ]


@hookimpl
def selfreward_optimizers() -> list[Plugin]:
    """Stage 5, each with the selector it brings along."""
    at = f"{_HERE}.optimizers"
    return [
        Plugin("ppo", f"{at}.ppo:Ppo", PpoConfig, "arXiv:1707.06347, arXiv:2203.02155 §3.5", partner="prompts"),
        Plugin("grpo", f"{at}.group_relative:Grpo", GrpoConfig, "arXiv:2402.03300 §4.1", partner="prompts"),
        Plugin("rloo", f"{at}.group_relative:Rloo", RlooConfig, "arXiv:2402.14740", partner="prompts"),
        Plugin("sft", f"{at}.sft:Sft", SftConfig, f"{_PAPER} §2.1", partner="positive_only"),
        Plugin("dpo", f"{at}.preference:Dpo", DpoConfig, "arXiv:2305.18290 §4", partner="best_worst"),
        Plugin("ipo", f"{at}.preference:Ipo", IpoConfig, "arXiv:2310.12036 §5", partner="best_worst"),
        Plugin("rpo", f"{at}.preference:Rpo", RpoConfig, "arXiv:2404.19733 §2", partner="best_worst"),
        Plugin("sppo", f"{at}.preference:Sppo", SppoConfig, "arXiv:2405.00675 §4", partner="best_worst"),
        Plugin("kto", f"{at}.kto:Kto", KtoConfig, "arXiv:2402.01306 §4", partner="best_worst"),
        Plugin("simpo", f"{at}.reference_free:Simpo", SimpoConfig, "arXiv:2405.14734 §2", partner="best_worst"),
        Plugin("orpo", f"{at}.reference_free:Orpo", OrpoConfig, "arXiv:2403.07691 §4", partner="best_worst"),
        Plugin(
            "reward_model",
            f"{at}.reward_model:RewardModel",
            RewardModelConfig,
            "arXiv:1706.03741 eq. 1, arXiv:2009.01325 §3.4",
            partner="all_pairs",
        ),
    ]


@hookimpl
def selfreward_prompt_filters() -> list[Plugin]:
    """Which prompts are dropped."""
    at, source = f"{_HERE}.prompt_filters", "arXiv:2212.10560 §2.2"
    return [
        Plugin("rouge_l", f"{at}.rouge_l:RougeL", RougeLConfig, source),
        Plugin("keywords", f"{at}.keywords:Keywords", KeywordsConfig, source),
        Plugin("length", f"{at}.length:Length", PromptLengthConfig, source),
        Plugin("near_duplicate", f"{at}.near_duplicate:NearDuplicate", NearDuplicateConfig, "arXiv:2107.06499 §4.2"),
        Plugin("contamination", f"{at}.contamination:Contamination", ContaminationConfig, "arXiv:2005.14165 app. C"),
    ]


@hookimpl
def selfreward_candidate_filters() -> list[Plugin]:
    """Which candidates are dropped."""
    return [Plugin("length", f"{_HERE}.candidate_filters.length:Length", CandidateLengthConfig)]


@hookimpl
def selfreward_pair_filters() -> list[Plugin]:
    """Which training rows are dropped."""
    at, source = f"{_HERE}.pair_filters", f"against the growth in {_PAPER} §3.2.1"
    return [
        Plugin("length_ratio", f"{at}.length_ratio:LengthRatio", LengthRatioConfig, source),
        Plugin("score_balance", f"{at}.score_balance:ScoreBalance", ScoreBalanceConfig, f"{_PAPER} §3.1.1"),
    ]


@hookimpl
def selfreward_evaluators() -> list[Plugin]:
    """What is measured."""
    at, source = f"{_HERE}.evaluators", f"{_PAPER} §3.1.2"
    return [
        Plugin("oracle", f"{at}.oracle:Oracle", OracleEvaluatorConfig, "the data's ground truth"),
        Plugin("judge_agreement", f"{at}.judge_agreement:JudgeAgreement", JudgeAgreementConfig, source),
        Plugin("head_to_head", f"{at}.head_to_head:HeadToHead", HeadToHeadConfig, source),
        Plugin("elo", f"{at}.elo:Elo", EloConfig, "arXiv:2204.05862, arXiv:2403.04132"),
        Plugin("vicuna", f"{at}.vicuna:Vicuna", FastChatConfig, "arXiv:2305.13735"),
        Plugin("mt_bench", f"{at}.mt_bench:MtBench", FastChatConfig, "arXiv:2306.05685"),
        Plugin("alpaca_eval", f"{at}.alpaca_eval:AlpacaEval", AlpacaEvalConfig, "arXiv:2305.14387, arXiv:2404.04475"),
        Plugin("hhh", f"{at}.hhh:Hhh", HhhConfig, "arXiv:2112.00861"),
        Plugin("preference_accuracy", f"{at}.preference_accuracy:PreferenceAccuracy", PreferenceAccuracyConfig),
        Plugin("reward_accuracy", f"{at}.reward_accuracy:RewardAccuracy", RewardAccuracyConfig, "arXiv:2009.01325"),
        Plugin("truthfulqa_mc1", f"{at}.truthfulqa_mc1:TruthfulQaMc1", TruthfulQaConfig, "arXiv:2109.07958"),
        Plugin("lm_loss", f"{at}.lm_loss:LmLoss", LmLossConfig, "the alignment tax, arXiv:2112.00861"),
        Plugin("lm_eval", f"{at}.lm_eval:LmEval", LmEvalConfig, "github.com/EleutherAI/lm-evaluation-harness"),
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
    return [
        Plugin("self_rewarding", f"{at}.self_rewarding:SelfRewarding", SelfRewardingConfig, f"{_PAPER} §2.4"),
        Plugin("rlhf", f"{at}.rlhf:Rlhf", RlhfConfig, "arXiv:2203.02155 §3, arXiv:2204.05862 §4.5"),
        Plugin("none", f"{at}.none:NoRounds", NoRoundsConfig, "nothing is trained"),
    ]


@hookimpl
def selfreward_data() -> list[Plugin]:
    """Seed prompts, human answers, held-out sets."""
    at = f"{_HERE}.data"
    return [
        Plugin("table", f"{at}.table:Table", TableConfig),
        Plugin("jsonl", f"{at}.table:Table", TableConfig, "the older name of table"),
        Plugin("oasst", f"{at}.oasst:Oasst", OasstConfig, "arXiv:2304.07327"),
        Plugin(
            "self_instruct", f"{at}.self_instruct:SelfInstructData", SelfInstructDataConfig, "arXiv:2212.10560 §2.2"
        ),
        Plugin("hh_rlhf", f"{at}.hh_rlhf:HhRlhf", HhRlhfConfig, "arXiv:2204.05862"),
        Plugin("pandalm", f"{at}.pandalm:PandaLm", PandaLmConfig, "arXiv:2306.05087"),
        Plugin("none", f"{at}.none:NoData", NoDataConfig, "nothing is read"),
    ]


@hookimpl
def selfreward_models() -> list[Plugin]:
    """What is aligned."""
    return [Plugin("hf", f"{_HERE}.models.hf:HuggingFace", HuggingFaceConfig)]


@hookimpl
def selfreward_engines() -> list[Plugin]:
    """How a model is run."""
    at = f"{_HERE}.engines"
    return [
        Plugin("transformers", f"{at}.transformers:TransformersEngine", TransformersConfig),
        Plugin("vllm", f"{at}.vllm:VllmEngine", VllmConfig, "PagedAttention, arXiv:2309.06180"),
        Plugin("server", f"{at}.server:ServerEngine", ServerConfig, "OpenAI's chat completions"),
    ]
