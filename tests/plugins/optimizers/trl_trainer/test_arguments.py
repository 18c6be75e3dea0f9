"""Options of the trainers: schedules, passes, threads, rules."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from selfreward import LoraOptions, ModelConfig, StageError
from selfreward.plugins.optimizers.sft import Sft, SftConfig
from selfreward.plugins.optimizers.training.options import Schedule, TrainingOptions
from selfreward.plugins.optimizers.trl_trainer.arguments import trainer_arguments


def learning_rates(options: TrainingOptions, context, steps: int = 10) -> list[float]:
    """The learning rates that the trainer's own scheduler gives for our arguments."""
    import torch
    from transformers import get_scheduler
    from trl import SFTConfig

    arguments = SFTConfig(**trainer_arguments(options, context))
    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=arguments.learning_rate)
    warmup = arguments.get_warmup_steps(steps)
    details = arguments.lr_scheduler_kwargs
    scheduler = get_scheduler(arguments.lr_scheduler_type, adamw, warmup, steps, scheduler_specific_kwargs=details)
    rates = []
    for _ in range(steps + 1):
        rates.append(scheduler.get_last_lr()[0])
        adamw.step()
        scheduler.step()
    return rates


def test_the_papers_learning_rates(context):
    rates = learning_rates(SftConfig(), context())
    assert (rates[0], rates[5], rates[10]) == pytest.approx((5.5e-6, 3.3e-6, 1.1e-6))


@pytest.mark.parametrize(
    ("schedule", "middle", "last"),
    [(Schedule.linear, 0.55, 0.1), (Schedule.cosine, 0.55, 0.1), (Schedule.constant, 1.0, 1.0)],
)
def test_schedules_end_at_the_ratio(schedule, middle, last, context):
    rates = learning_rates(TrainingOptions(lr=1.0, schedule=schedule, min_lr_ratio=0.1), context())
    assert (rates[0], rates[5], rates[10]) == pytest.approx((1.0, middle, last))


def test_warmup_is_a_share_of_the_steps(context):
    rates = learning_rates(TrainingOptions(lr=1.0, warmup=0.2), context())
    assert rates[:3] == pytest.approx([0.0, 0.5, 1.0])
    assert rates[10] == pytest.approx(0.1)


def test_a_batch_is_shared_by_all_processes(context, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    options = TrainingOptions(batch_size=16, gradient_accumulation=2)
    assert trainer_arguments(options, context())["per_device_train_batch_size"] == 2
    with pytest.raises(StageError, match="batch_size=12 cannot be split evenly over 8 passes"):
        trainer_arguments(TrainingOptions(batch_size=12, gradient_accumulation=2), context())


def test_rules_between_options():
    assert TrainingOptions().problems() == []
    (problem,) = TrainingOptions(batch_size=6, gradient_accumulation=4).problems()
    assert "multiple of gradient_accumulation" in problem


def test_an_adapter_on_the_head_is_refused_before_any_work():
    about = [ModelConfig(lora=LoraOptions(r=4, target_modules=names)) for names in ("q_proj", "q_proj,lm_head")]
    none, (problem,) = (Sft(SftConfig()).problems(SimpleNamespace(model_config=config)) for config in about)
    assert none == []
    assert "lm_head" in problem


def test_threads_while_training_and_after(context, update, demonstration, monkeypatch):
    import torch

    rows, seen = [demonstration("a", "b")], []
    forward = torch.nn.Embedding.forward

    def watched(module, ids):
        seen.append(torch.get_num_threads())
        return forward(module, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", watched)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for threads in (0, 3):
            update(Sft(SftConfig(epochs=1, threads=threads)), rows, context())
        assert set(seen) == {1, 3}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_config_classes_are_cheap_to_import():
    import subprocess
    import sys

    code = (
        "import sys, selfreward.plugins.optimizers.sft, selfreward.plugins.optimizers.preference\n"
        "print({'torch', 'transformers', 'trl', 'datasets', 'peft', 'numpy'} & set(sys.modules) or 'cheap')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "cheap"
