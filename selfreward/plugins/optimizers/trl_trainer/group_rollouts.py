"""Groups of answers for TRL's trainers: sampled and judged by the round's own sampler and judge.

TRL hands over which prompts are due, n times each, and takes back tokens and rewards; baselines, clipping, the loss and
the loop are its own. What is ours:

- **tokens**: prompts were encoded by us, answers are trained on exactly as they were sampled.
- **reference**: the model that is given, or the policy with its adapters off; TRL would load the one that the policy's
  config remembers.
- **order**: every prompt is answered once an epoch; an epoch's last batch is filled up with its first prompts.
- **scores**: one call of the judge per batch. An answer without a score has advantage 0 and no part in its group's
  baseline; a group whose scores are all equal has advantage 0 exactly, where rounding would leave GRPO some.
- **resume**: a batch depends on seed, step and weights alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from selfreward import AnsweredPrompt, Candidate, Judgement, Prompt, Rollouts, StageError
from selfreward.plugins.optimizers.training.policy_weights import policy_weights

if TYPE_CHECKING:
    import torch
    from torch.utils.data import Sampler
    from transformers import PreTrainedModel

COUNTS = ("answers", "votes", "unreadable", "unscored", "cut_off", "characters")
"""What is counted in every batch of answers, over all processes."""


class GroupRollouts:
    """What a TRL trainer of groups does in place of its own; built on the trainer by multiple inheritance."""

    def __init__(
        self: Any,
        *given: Any,
        rollouts: Rollouts,
        prompts: Mapping[str, tuple[Prompt, list[int]]],
        stop_ids: Sequence[int],
        reference: PreTrainedModel | None,
        beta: float,
        **named: Any,
    ) -> None:
        """As the trainer's, whose own ``beta`` must be 0, so that it loads no reference.

        Args:
            prompts: by id, with their tokens; the rows of the dataset name them.
            reference: None where the policy without its adapters is the reference, or ``beta`` is 0.
        """
        super().__init__(*given, reward_funcs=[rollouts.score], **named)  # type: ignore[call-arg]
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise StageError(
                "what samples while it trains needs the whole policy on every GPU (DDP): take adapters "
                "(model.lora.r=16), or launch.processes= without launch.config="
            )
        self.rollouts, self.prompts, self.beta = rollouts, prompts, beta
        self.eos_token_ids = list(stop_ids)
        if reference is not None:
            self.ref_model = self.accelerator.prepare_model(_fused(reference, self.temperature), evaluation_mode=True)

    def _get_train_sampler(self: Any, dataset: Any = None) -> Sampler:
        """Every prompt of a batch n times, the batch as often as it is learnt from."""
        batch = self.args.generation_batch_size // self.num_generations
        times = self.num_iterations * self.args.steps_per_generation
        return _epoch(len(self.prompts), batch, self.num_generations, times)

    def _generate(self: Any, prompts: list[str]) -> Any:
        asked = [self.prompts[name][0] for name in prompts[:: self.num_generations]]
        with policy_weights(self.accelerator.unwrap_model(self.model)) as weights:
            self.answered = self.rollouts.sample(asked, weights, self.state.global_step)
        _check(self.answered, self.num_generations)
        return super()._generate(prompts)  # type: ignore[misc]

    def _tokenize_prompts(self: Any, prompts: list[str]) -> Any:
        return [self.prompts[name][1] for name in prompts], None, {}

    def _generate_single_turn(self: Any, *_: Any) -> Any:
        tokens = [list(candidate.token_ids) for candidate in _candidates(self.answered)]
        return (tokens, None) if self._name == "GRPO" else tokens  # None: log-probabilities are computed anew

    def _calculate_rewards(self: Any, *_: Any) -> torch.Tensor:
        """The scores of all processes' answers [answers, 1]; NaN where there is none."""
        import torch

        judgements = self.rollouts.score(self.answered, self.state.global_step)
        counts = torch.tensor(_counts(self.answered, judgements), dtype=torch.float64, device=self.accelerator.device)
        for name, count in zip(COUNTS, self.accelerator.reduce(counts, "sum").tolist(), strict=True):
            self._metrics["train"][name].append(count)
        scores = [math.nan if judgement.score is None else judgement.score for judgement in judgements]
        self.scores = self.accelerator.gather(torch.tensor(scores, device=self.accelerator.device)[:, None])
        return self.scores

    def _generate_and_score_completions(self: Any, inputs: list[Any]) -> Any:
        import torch

        batch = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        lengths = self.accelerator.gather(batch["completion_mask"].sum(1))
        flat = _flat(self.scores.view(-1, self.num_generations), lengths.view(-1, self.num_generations))
        if self._name == "GRPO":
            first = self.accelerator.process_index * len(inputs)
            batch["advantages"][flat.repeat_interleave(self.num_generations)[first : first + len(inputs)]] = 0.0
        self._metrics["train"]["flat_groups"].append(flat.double().mean().item())
        self.length = lengths[lengths > 0].double().mean().nan_to_num().item()
        # the trainer shuffles next; whoever loaded a model meanwhile has drawn from the same generator
        torch.manual_seed(self.args.seed + self.state.global_step)
        return batch

    def log(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the trainer's, with the KL in nats an answer instead of nats a token."""
        figures = self._metrics["train"]
        if "kl" in figures:
            figures["kl"] = [kl * self.length for kl in figures["kl"]]
        super().log(logs, start_time)  # type: ignore[misc]


@contextmanager
def without_vllm() -> Iterator[None]:
    """Import TRL's trainers in here: they import an installed vLLM, which takes seconds, talks, and is not used."""
    from trl import import_utils

    asked = import_utils.is_vllm_available
    import_utils.is_vllm_available = lambda *_, **__: False
    try:
        yield
    finally:
        import_utils.is_vllm_available = asked


def _fused(model: Any, temperature: float) -> Any:
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model, temperature=temperature)
    return model


def _epoch(prompts: int, batch: int, n: int, times: int) -> Sampler:
    import torch
    from torch.utils.data import Sampler

    class Epoch(Sampler):
        generator: torch.Generator | None = None

        def __len__(self) -> int:
            return math.ceil(prompts / batch) * batch * n * times

        def __iter__(self) -> Iterator[int]:
            order = torch.randperm(prompts, generator=self.generator).tolist()
            order += order[: -prompts % batch]
            for start in range(0, len(order), batch):
                for _ in range(times):
                    yield from (index for index in order[start : start + batch] for _ in range(n))

    return Epoch()


def _candidates(answered: Sequence[AnsweredPrompt]) -> list[Candidate]:
    return [candidate for group in answered for candidate in group.candidates]


def _check(answered: Sequence[AnsweredPrompt], n: int) -> None:
    for group in answered:
        if len(group.candidates) != n or not all(candidate.token_ids for candidate in group.candidates):
            raise StageError(
                f"the sampler gave {len(group.candidates)} answers to prompt {group.prompt.prompt_id}, "
                f"{sum(not candidate.token_ids for candidate in group.candidates)} of them without tokens, and policy "
                f"gradients take sampler.n={n} answers as they were sampled; take sampler=nucleus"
            )


def _counts(answered: Sequence[AnsweredPrompt], judgements: Sequence[Judgement]) -> list[int]:
    """As in ``COUNTS``."""
    candidates, votes = _candidates(answered), [vote for judgement in judgements for vote in judgement.votes]
    return [
        len(candidates),
        len(votes),
        sum(vote is None for vote in votes),
        sum(judgement.score is None for judgement in judgements),
        sum(candidate.finish_reason == "length" for candidate in candidates),
        sum(len(candidate.text) for candidate in candidates),
    ]


def _flat(scores: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Which groups teach nothing [groups]: no two scores differ, or no token counts. Both are [groups, n]."""
    highest, lowest = scores.nan_to_num(nan=-math.inf).amax(1), scores.nan_to_num(nan=math.inf).amin(1)
    return (highest <= lowest) | (lengths.sum(1) == 0)
