"""KTO against a float64 computation by hand, on pairs and on scored answers."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import Demonstration, Scored, StageError, TrainingSet
from selfreward.plugins.optimizers.kto import Kto, KtoConfig, partners
from selfreward.plugins.optimizers.training.options import Schedule
from selfreward.plugins.optimizers.trl_trainer.holdout import split

END = 1
PAIRS = [("a:1+2", "three", "four,I-think"), ("hello", "hi", "go-away"), ("say<|end|>", "<|end|>", "no")]
"""In the order of the prompts, each of which is its own id."""


@pytest.fixture
def pairs(pair, spell):
    """Texts, sampled tokens that are not what the texts would give, and a control token as text."""
    first, (prompt, *answers), last = PAIRS
    rows = [pair(*first), pair(prompt, "ignored", "ignored", *([*spell(a), END] for a in answers)), pair(*last)]
    return [dataclasses.replace(row, prompt_id=texts[0]) for row, texts in zip(rows, PAIRS, strict=True)]


def scored(prompt, answer, score, token_ids=()):
    turns = [[{"role": role, "content": text}] for role, text in (("user", prompt), ("assistant", answer))]
    return Scored(*turns, score, list(token_ids), prompt, f"c{score}")


@pytest.fixture
def answers(pairs):
    """The same answers, scored."""
    columns = (("chosen", 3.5), ("rejected", 3.0))
    return [
        scored(row.prompt[0]["content"], getattr(row, side)[0]["content"], score, getattr(row, f"{side}_token_ids"))
        for row in pairs
        for side, score in columns
    ]


def loss_by_hand(options, model, reference, spell, spell_prompt, token_log_probs, texts=PAIRS):
    """The mean loss of the answers of the pairs, z, and the log-ratios (desirable, undesirable) of each pair."""
    import torch

    prompts = [spell_prompt(prompt) for prompt, *_ in texts]
    ids = [[[*spell(text), END] for text in answers] for _, *answers in texts]
    longest = max(len(prompt) + len(answer) for prompt, both in zip(prompts, ids, strict=True) for answer in both)

    def ratio(prompt, answer):
        return token_log_probs(model, prompt, answer).sum() - token_log_probs(reference, prompt, answer).sum().detach()

    with torch.no_grad():  # each prompt with the answers to the next one
        z = torch.stack([
            ratio(prompt, answer[: longest - len(prompt)])
            for prompt, both in zip(prompts, [*ids[1:], ids[0]], strict=True)
            for answer in both
        ]).mean().clamp(min=0)  # fmt: skip
    losses, ratios = [], []
    for prompt, (good, bad) in zip(prompts, ids, strict=True):
        up, down = ratio(prompt, good), ratio(prompt, bad)
        losses.append(options.desirable_weight / (1 + torch.exp(options.beta * (up - z))))
        losses.append(options.undesirable_weight / (1 + torch.exp(options.beta * (z - down))))
        ratios.append((up.item(), down.item()))
    return torch.stack(losses).mean(), z.item(), ratios


CASES = [
    ("pairs", KtoConfig(), False),
    ("pairs", KtoConfig(beta=0.3, desirable_weight=2.0, undesirable_weight=0.7), True),
    ("answers", KtoConfig(beta=0.3, threshold=3.2), True),
    ("answers", KtoConfig(threshold=3.5), False),
]


@pytest.mark.parametrize(("table", "options", "swapped"), CASES)
def test_two_steps_match_adamw_by_hand(
    table, options, swapped, request, context, update, checkpoint, other_checkpoint, load64, spell, spell_prompt,
    token_log_probs,
):  # fmt: skip
    import torch

    options = dataclasses.replace(options, lr=1e-3, epochs=2, schedule=Schedule.constant)
    start, frozen = (other_checkpoint, checkpoint) if swapped else (checkpoint, other_checkpoint)
    losses: list[float] = []
    made = context(start, frozen, losses=losses)
    figures = update(Kto(options), request.getfixturevalue(table), made)

    model, reference = load64(start), load64(frozen)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    by_hand = []
    for _ in range(2):
        loss, z, ratios = loss_by_hand(options, model, reference, spell, spell_prompt, token_log_probs)
        by_hand.append(loss.item())
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
    assert losses == pytest.approx(by_hand, rel=1e-4)
    assert (z > 1) == swapped, "one case with an estimate above 0, the other with one cut off at 0"
    right = [up > z for up, _ in ratios] + [down <= z for _, down in ratios]
    assert figures == {
        "loss": losses[-1],
        "reward_accuracy": pytest.approx(sum(right) / 6),
        "kl": pytest.approx(z, rel=1e-3),
        "chosen_change": pytest.approx(sum(up for up, _ in ratios) / 3, rel=1e-3),
        "rejected_change": pytest.approx(sum(down for _, down in ratios) / 3, rel=1e-3),
        "desirable_share": 0.5,
        "steps": 2,
        "rows": 6,
        "too_long": 0,
    }
    trained = load64(made.out)
    for name, weight in trained.named_parameters():
        torch.testing.assert_close(weight, model.get_parameter(name), rtol=1e-2, atol=5e-5)


@pytest.mark.parametrize("lora", [0, 4])
def test_the_start_is_the_reference(lora, pairs, context, update, checkpoint, tmp_path):
    """The reference has the start's weights, not those of the checkpoint that the start was once made from."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    start = tmp_path / "trained"
    model.save_pretrained(start)
    context(checkpoint).start.chat().save(start)

    losses: list[float] = []
    update(Kto(KtoConfig()), pairs, context(start, lora=lora, losses=losses))
    assert losses[0] == pytest.approx(0.5, abs=1e-6)


def test_adapters_against_another_reference(
    answers, context, update, checkpoint, other_checkpoint, load64, spell, spell_prompt, token_log_probs
):
    losses: list[float] = []
    update(Kto(KtoConfig(threshold=3.2)), answers, context(checkpoint, other_checkpoint, lora=4, losses=losses))
    models = (load64(checkpoint), load64(other_checkpoint))
    by_hand, _, _ = loss_by_hand(KtoConfig(), *models, spell, spell_prompt, token_log_probs)
    assert losses[0] == pytest.approx(by_hand.item(), rel=1e-5)


def many():
    return [
        scored(f"say:{n}", answer * (n % 4 + 1), score)
        for n in range(16)
        for answer, score in (("yes", 4.0), ("no", 1.0), ("yes,yes", 3.0), ("no,no", 2.9))
    ]


def test_training_raises_the_desirable_and_repeats_to_the_byte(context, update):
    """In batches so small that now and then a kind is missing."""
    options, made = KtoConfig(lr=3e-3, epochs=4, batch_size=4, gradient_accumulation=2), [context(), context()]
    figures = [update(Kto(options), many()[:32], one) for one in made]
    assert figures[0] == figures[1]
    assert figures[0]["reward_accuracy"] > 0.8
    assert figures[0]["loss"] < 0.4
    assert figures[0]["chosen_change"] > 0 > figures[0]["rejected_change"]
    first, again = ((one.out / "model.safetensors").read_bytes() for one in made)
    assert first == again


def test_the_rows_are_drawn_anew_in_each_epoch_as_the_option_says(context, update, checkpoint, other_checkpoint):
    told = {}
    for grouped in (True, False):
        options = KtoConfig(lr=1e-12, epochs=2, batch_size=8, group_by_length=grouped)
        update(Kto(options), many(), context(checkpoint, other_checkpoint, losses=told.setdefault(grouped, [])))
    assert len(told[True]) == len(told[False]) == 16
    assert told[True] != pytest.approx(told[False], abs=1e-3)
    for losses in told.values():
        assert losses[:8] != pytest.approx(losses[8:], abs=1e-3)


def test_held_out_answers_are_measured_with_the_loss(
    pair, context, update, checkpoint, other_checkpoint, load64, spell, spell_prompt, token_log_probs
):
    texts = [(f"say:{n}", "yes" * (n % 4 + 1), "no" * (n % 3 + 1)) for n in range(10)]
    rows = [dataclasses.replace(pair(*row), prompt_id=row[0]) for row in texts]
    options = KtoConfig(lr=1e-3, epochs=1, holdout=0.3)
    made = context(other_checkpoint, checkpoint)
    figures = update(Kto(options), rows, made)
    _, held_out = split([{"prompt_id": row[0], "texts": row} for row in texts], 0.3)
    held_out = [row["texts"] for row in held_out]
    models = (load64(made.out), load64(checkpoint))
    loss, z, ratios = loss_by_hand(options, *models, spell, spell_prompt, token_log_probs, held_out)
    right = [up > z for up, _ in ratios] + [down <= z for _, down in ratios]
    assert (figures["rows"], figures["holdout_rows"]) == (14, 6)
    assert figures["holdout_loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert figures["holdout_accuracy"] == pytest.approx(sum(right) / 6)


def test_replay_is_added(
    pairs, demonstration, context, update, checkpoint, load64, spell, spell_prompt, token_log_probs
):
    seed = demonstration("name-a-color", "red")
    losses: list[float] = []
    made = dataclasses.replace(context(losses=losses), replay=TrainingSet(Demonstration, 1, lambda: iter([seed])))
    figures = update(Kto(KtoConfig(epochs=1, replay=0.3)), pairs, made)
    model = load64(checkpoint)
    imitated = -token_log_probs(model, spell_prompt("name-a-color"), [*spell("red"), END]).mean().item()
    assert losses[0] == pytest.approx(0.5 + 0.3 * imitated, rel=1e-5)
    assert (figures["replay_loss"], figures["replay_rows"]) == (pytest.approx(imitated, rel=1e-5), 1)


# ---------------------------------------------------------------------------------------------- what cannot be learnt


@pytest.mark.parametrize(
    ("threshold", "told"),
    [
        (1.0, r"none of the 64 answers to train on is undesirable.* scores go from 1 to 4 .*threshold is 1; raise it"),
        (4.5, r"none of the 64 answers to train on is desirable.* scores go from 1 to 4 .*threshold is 4.5; lower it"),
    ],
)
def test_one_kind_alone_is_refused(threshold, told, context, update):
    made = context()
    with pytest.raises(StageError, match=told):
        update(Kto(KtoConfig(threshold=threshold)), many(), made)
    assert not any(made.out.iterdir())


def test_a_kind_that_is_too_long_altogether(pair, context, update):
    rows = [pair(f"say:{n}", "yes", "n" * 60) for n in range(4)]
    with pytest.raises(
        StageError, match=r"of the 4 answers to train on is undesirable.*optimizer.max_length=40; raise"
    ):
        update(Kto(KtoConfig(max_length=40)), rows, context())


def test_answers_that_do_not_fit_are_dropped_one_by_one(pairs, pair, context, update):
    rows = [*pairs, pair("long", "y" * 60, "n"), pair("long", "y", "n" * 60)]
    figures = update(Kto(KtoConfig(epochs=1, max_length=40)), rows, context())
    assert (figures["rows"], figures["too_long"]) == (8, 2)


def test_a_pair_of_equals_is_refused(pairs, pair, context, update):
    with pytest.raises(StageError, match=r"prompt p1: the chosen answer c1 and the rejected answer c2 are the same"):
        update(Kto(KtoConfig()), [*pairs, pair("which?", "this", "this")], context())


def test_divergence_is_an_error_and_saves_nothing(pairs, context, update):
    made = context()
    with pytest.raises(StageError, match=r"diverged at step \d+ of 20"):
        update(Kto(KtoConfig(lr=1e30, epochs=20)), pairs, made)
    assert not any(made.out.iterdir())


def test_a_pass_needs_two_answers():
    assert not KtoConfig(batch_size=4, gradient_accumulation=2).problems()
    assert "at least twice gradient_accumulation=4" in KtoConfig(batch_size=4, gradient_accumulation=4).problems()[0]


# ------------------------------------------------------------------------------------------- answers to other prompts


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30))
def test_everybody_gets_the_answer_of_another_and_each_serves_once(prompts):
    taken = partners(prompts)
    assert sorted(taken) == list(range(len(prompts)))
    if 2 * max(Counter(prompts).values()) <= len(prompts):
        assert all(prompts[other] != prompt for prompt, other in zip(prompts, taken, strict=True))
