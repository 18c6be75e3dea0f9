"""Replayed demonstrations against a float64 computation by hand, and which pair meets which demonstration."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import Demonstration, StageError, TrainingSet
from selfreward.plugins.optimizers.preference import Dpo, DpoConfig, Ipo, IpoConfig
from selfreward.plugins.optimizers.training.options import Schedule
from selfreward.plugins.optimizers.training.replay import Replay

END = 1
PAIRS = [("add:1+2", "three", "four,I-think"), ("hello", "hi", "go-away"), ("say<|end|>", "<|end|>", "no")]
SEEDS = [("name-a-color", "red"), ("what<|end|>is-it", "<|user|>this"), ("count", "one,two,three")]


@pytest.fixture
def replaying(context, demonstration):
    """Makes a context that has these demonstrations."""

    def make(seeds=SEEDS, **given):
        rows = [demonstration(*texts) for texts in seeds]
        replay = TrainingSet(Demonstration, len(rows), lambda: iter(rows))
        return dataclasses.replace(context(**given), replay=replay)

    return make


def step_by_hand(kind, options, model, reference, spell, spell_prompt, token_log_probs):
    """Loss of a batch of all the pairs and all the demonstrations, and the demonstrations' part."""
    import torch

    losses = []
    for prompt, *answers in PAIRS:
        asked, ids = spell_prompt(prompt), [[*spell(text), END] for text in answers]
        with torch.no_grad():
            frozen = [token_log_probs(reference, asked, answer).sum() for answer in ids]
        won, lost = (token_log_probs(model, asked, a).sum() - f for a, f in zip(ids, frozen, strict=True))
        gap = won / len(ids[0]) - lost / len(ids[1])
        losses.append(torch.log1p(torch.exp(-options.beta * (won - lost))) if kind == "dpo" else (gap - 0.5) ** 2)
    seeds = [token_log_probs(model, spell_prompt(prompt), [*spell(text), END]) for prompt, text in SEEDS]
    replayed = -torch.cat(seeds).mean()
    return torch.stack(losses).mean() + options.replay * replayed, replayed


@pytest.mark.parametrize(
    ("plugin", "options", "kind"), [(Dpo, DpoConfig(replay=0.3), "dpo"), (Ipo, IpoConfig(replay=2.0), "ipo")]
)
def test_three_steps_match_adamw_by_hand(
    plugin, options, kind, pair, replaying, update, checkpoint, other_checkpoint, load64, spell, spell_prompt,
    token_log_probs,
):  # fmt: skip
    import torch

    options = dataclasses.replace(options, lr=1e-3, epochs=3, schedule=Schedule.constant)
    losses: list[float] = []
    made = replaying(start=checkpoint, reference=other_checkpoint, losses=losses)
    figures = update(plugin(options), [pair(*texts) for texts in PAIRS], made)

    model, reference = load64(checkpoint), load64(other_checkpoint)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    by_hand = []
    for _ in range(3):
        loss, replayed = step_by_hand(kind, options, model, reference, spell, spell_prompt, token_log_probs)
        by_hand.append(loss.item())
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
    assert losses == pytest.approx(by_hand, rel=1e-4)
    assert figures["replay_loss"] == pytest.approx(replayed.item(), rel=1e-4)
    assert (figures["rows"], figures["replay_rows"]) == (3, 3)
    trained = load64(made.out)
    for name, weight in trained.named_parameters():
        torch.testing.assert_close(weight, model.get_parameter(name), rtol=1e-2, atol=2e-5)


def test_it_keeps_what_was_taught(pair, replaying, update):
    rows = [pair(f"say:{n}", "yes" * (n % 4 + 1), "no" * (n % 3 + 1)) for n in range(24)]
    told = {}
    for replay in (1e-9, 1.0):
        options = DpoConfig(lr=3e-3, epochs=4, batch_size=8, replay=replay)
        told[replay] = update(Dpo(options), rows, replaying())
    assert told[1.0]["replay_loss"] < told[1e-9]["replay_loss"] - 1
    assert told[1.0]["reward_accuracy"] == 1.0


def test_adapters_accumulated_passes_and_bytes(pair, replaying, update):
    rows = [pair(f"say:{n}", "yes" * (n % 4 + 1), "no" * (n % 3 + 1)) for n in range(12)]
    options = DpoConfig(
        lr=3e-3, epochs=2, batch_size=4, replay=0.5, gradient_accumulation=2, gradient_checkpointing=True
    )
    made = [replaying(lora=4) for _ in range(2)]
    figures = [update(Dpo(options), rows, one) for one in made]
    assert figures[0] == figures[1]
    first, again = ((one.out / "model.safetensors").read_bytes() for one in made)
    assert first == again


def test_what_is_held_out_is_measured_without_replay(pair, replaying, context, update):
    """The first measurement is of the start but for a tiny step, whatever the weight of the replay is."""
    rows = [dataclasses.replace(pair(f"say:{n}", "yes", "no" * (n % 3 + 1)), prompt_id=str(n)) for n in range(12)]
    losses = [
        update(Dpo(DpoConfig(lr=1e-12, epochs=1, holdout=0.3, replay=weight)), rows, made)["holdout_loss"]
        for weight, made in ((5.0, replaying()), (0.0, context()))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_nothing_to_replay(pair, context, replaying, update):
    rows = [pair(*texts) for texts in PAIRS]
    for made in (context(), replaying(seeds=[])):
        with pytest.raises(StageError, match=r"optimizer.replay=0.1: no round before the loop made demonstrations"):
            update(Dpo(DpoConfig(replay=0.1)), rows, made)
    with pytest.raises(StageError, match=r"none of the 3 replayed demonstrations fits into 8 tokens"):
        update(Dpo(DpoConfig(replay=0.1, max_length=8)), rows, replaying())


def test_demonstrations_that_do_not_fit_are_left_out(pair, replaying, update):
    made = replaying(seeds=[*SEEDS, ("long", "y" * 60)])
    assert update(Dpo(DpoConfig(epochs=1, max_length=50, replay=0.1)), [pair(*PAIRS[0])], made)["replay_rows"] == 3


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(0, 3))
def test_all_demonstrations_are_met_equally_often(demonstrations, pairs, epochs, seed):
    rows = [{"input_ids": [n]} for n in range(demonstrations)]
    replay = Replay(rows, pairs, 1.0, lambda batch: [row["input_ids"][0] for row in batch], seed)
    met = Counter(n for epoch in range(epochs) for n in replay.batch(list(range(pairs)), epoch))
    assert sum(met.values()) == epochs * pairs
    assert max(met.values()) - min(met[n] for n in range(demonstrations)) <= 1
    one_by_one = [replay.batch([n], 1)[0] for n in range(pairs)]
    assert one_by_one == replay.batch(list(range(pairs)), 1)  # whoever shares the batch
