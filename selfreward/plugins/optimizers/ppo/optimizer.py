"""Proximal policy optimization against any judge (arXiv:1707.06347, arXiv:1909.08593, arXiv:2203.02155 §3.5).

Each batch, the policy answers ``rollouts`` prompts, the round's judge scores the answers, and the policy takes
``ppo_epochs`` passes of clipped steps over them:

    reward     judge's score on the last token - beta (log pi - log ref) on every token
    objective  E min(q A, clip(q, 1 - clip, 1 + clip) A) - value_coef value loss + entropy_coef H
               + replay E[log pi(demonstration)]                                                    (PPO-ptx)

with the ratio q of the policy to the one that sampled, and advantages A by GAE. What decides whether it trains is told
in arXiv:2403.17031 and arXiv:2307.04964: log-probabilities of policy and reference are taken at the sampling
temperature, from the whole distribution, with the positions that padding leaves; padding is told by a mask, never by
the token; the end-of-turn token is part of the answer, and one without it gets ``missing_eos``; scores are scaled and
not shifted; advantages are whitened; Adam's epsilon is 1e-5; the value function begins at the mean score.

Trained on prompts (``selector=prompts``, its partner), it answers and asks the judge itself. Trained on scored answers
(``selector=scored``), it learns from those: their log-probabilities under the start, which sampled them, are computed
once, so that the ratio corrects for what the policy has become since. ``reward`` is then what the stored answers have,
and no measure of the policy.
"""

from __future__ import annotations

from collections.abc import Mapping

from selfreward import Instruction, Scored, TrainingContext, TrainingSet
from selfreward.plugins.optimizers.ppo.options import PpoConfig
from selfreward.plugins.optimizers.training.optimizer import GradientOptimizer


class Ppo(GradientOptimizer):
    """Our own trainer: TRL has none any more."""

    reads = (Instruction, Scored)
    unfiltered = True
    config: PpoConfig

    @property
    def replays(self) -> bool:
        return self.config.replay > 0

    @property
    def critic(self) -> str | None:
        return None if self.config.critic == "head" else self.config.critic

    def update(self, training: TrainingSet, context: TrainingContext) -> Mapping[str, float]:
        """Train and save; what happened in each batch is kept beside the weights, in ``training.jsonl``.

        Figures: over the last 20 % of the batches ``reward`` (mean score of the answers, in the judge's points),
        ``reward_gain`` (over the first batch's), ``kl`` (nats an answer to the reference), ``beta``, ``loss``,
        ``value_loss``, ``explained_variance``, ``clip_fraction``, ``entropy`` (nats a token) and ``length`` (tokens);
        in all ``batches``, ``steps``, ``answers``, ``votes``, ``unreadable``, ``unscored``, ``cut_off``, ``too_long``,
        ``flat_batches`` (all scores equal: no step was taken), ``stopped_early`` (batches ended by ``stop_kl``).

        Raises:
            StageError: nothing to learn from, a score that is no number, KL that explodes, or training diverged;
                nothing is saved.
        """
        from selfreward.plugins.optimizers.ppo.trainer import PpoTrainer

        trainer = PpoTrainer(training, context, self.config)
        trainer.train()
        trainer.save()
        return trainer.figures()
