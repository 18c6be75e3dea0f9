"""selfreward: a language model improves itself by its own judgement (arXiv:2401.10020).

Everything a plugin needs is importable from here; names are loaded when they are asked for, so ``import selfreward`` is
cheap.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "config.hookspecs": ["hookimpl"],
    "config.registry": ["Plugin"],
    "contracts.data": ["Data"],
    "contracts.engine": ["Completion", "Continuations", "Engine", "Likelihood", "Request", "Sampling"],
    "contracts.evaluation": ["EvaluationContext", "Evaluator", "Figure", "Metric", "Plot"],
    "contracts.model": ["Dtype", "LoraOptions", "Model", "ModelConfig", "ModelRef"],
    "contracts.monitors": ["Event", "Finding", "Monitor", "Severity"],
    "contracts.options": ["option"],
    "contracts.records": [
        "AnsweredPrompt", "Candidate", "Demonstration", "Instruction", "JudgedPrompt", "Judgement", "Preference",
        "Prompt", "Record", "Scored", "ScoredCandidate", "TrainingRow", "digest",
    ],
    "contracts.rounds": ["Recipe", "Round", "RoundConfig"],
    "contracts.stages": [
        "Asking", "FileContext", "Filter", "Judge", "Optimizer", "OptimizerConfig", "PromptGenerator", "Rollouts",
        "Sampler", "Selector", "Stage", "StageContext", "TextMetric", "TrainingContext", "TrainingSet",
    ],
    "errors": ["SelfRewardError", "StageError", "UserError"],
    "report.page": ["build_report"],
    "text.chat": ["Chat"],
    "text.messages": ["Message"],
    "text.rubric": ["Rubric"],
    "text.verdict": ["read_score"],
}  # fmt: skip
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'selfreward' has no attribute {name!r}")
    return getattr(importlib.import_module(f"selfreward.core.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
