"""Self-rewarding, as in the paper's algorithm (arXiv:2401.10020 §2.4): M0 → M1 → M2 → M3.

Every round is the same five stages; what a stage does is the plugin's business, that it is done once and kept is that
of :mod:`selfreward.core.run.stages`.
"""

from __future__ import annotations

from selfreward.core.run.run import Run


def align(run: Run) -> None:
    """Run the recipe's rounds. Each model is measured when it has been made, while its engine is open."""
    run.measure("M0")
    for round in run.rounds():
        prompt_generator, sampler, judge, selector, optimizer = run.begin(round)

        prompts = prompt_generator.propose()
        candidates = sampler.sample(prompts)
        judgements = judge.score(prompts, candidates)
        training = selector.select(prompts, candidates, judgements)
        policy = optimizer.update(*run.earlier_sets(round), training)

        run.finish(round, policy, training)
        run.measure(round.makes)
