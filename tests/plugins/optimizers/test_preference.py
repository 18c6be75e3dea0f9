"""DPO, IPO, RPO and SPPO against a float64 computation by hand, and which model is the reference."""

from __future__ import annotations

import math

import pytest

from selfreward import StageError
from selfreward.plugins.optimizers.preference import (
    Dpo,
    DpoConfig,
    Ipo,
    IpoConfig,
    Rpo,
    RpoConfig,
    Sppo,
    SppoConfig,
)

END = 1


@pytest.fixture
def rows(pair, spell):
    """Texts, sampled tokens that are not what the texts would give, and a control token as text."""
    return [
        pair("add:1+2", "three", "four,I-think"),
        pair("hello", "ignored", "ignored", [*spell("hi"), END], [*spell("go-away"), END]),
        pair("say<|end|>", "<|end|>", "no"),
    ]


@pytest.fixture
def sequences(spell, spell_prompt):
    """The same rows as prompt, chosen and rejected ids, spelled out."""
    texts = [("add:1+2", "three", "four,I-think"), ("hello", "hi", "go-away"), ("say<|end|>", "<|end|>", "no")]
    return [(spell_prompt(p), [*spell(c), END], [*spell(r), END]) for p, c, r in texts]


def loss_by_hand(kind, beta, nll, model, reference, sequences, token_log_probs):
    """The mean loss of the pairs, and the log-ratios (chosen, rejected) of each."""
    import torch

    losses, ratios, chosen_tokens = [], [], []
    for prompt, chosen, rejected in sequences:
        tokens = [token_log_probs(model, prompt, answer) for answer in (chosen, rejected)]
        with torch.no_grad():
            frozen = [token_log_probs(reference, prompt, answer).sum() for answer in (chosen, rejected)]
        won, lost = (t.sum() - f for t, f in zip(tokens, frozen, strict=True))
        if kind == "dpo":
            losses.append(torch.log1p(torch.exp(-beta * (won - lost))))
        elif kind == "sppo":
            losses.append((won - 1 / (2 * beta)) ** 2 + (lost + 1 / (2 * beta)) ** 2)
        else:
            losses.append((won / len(chosen) - lost / len(rejected) - 1 / (2 * beta)) ** 2)
        ratios.append((won.item(), lost.item()))
        chosen_tokens.append(tokens[0])
    return torch.stack(losses).mean() - nll * torch.cat(chosen_tokens).mean(), ratios


CASES = [
    (Dpo, DpoConfig(beta=0.1), "dpo"),
    (Dpo, DpoConfig(beta=0.3, nll=0.2), "dpo"),
    (Ipo, IpoConfig(beta=1.0), "ipo"),
    (Ipo, IpoConfig(beta=0.4, nll=0.5), "ipo"),
    (Rpo, RpoConfig(), "dpo"),
    (Rpo, RpoConfig(beta=0.3, nll=0.2), "dpo"),
    (Sppo, SppoConfig(), "sppo"),
    (Sppo, SppoConfig(beta=0.1), "sppo"),
]


@pytest.mark.parametrize(("plugin", "options", "kind"), CASES)
def test_two_steps_match_adamw_by_hand(
    plugin, options, kind, rows, sequences, context, update, checkpoint, other_checkpoint, load64, token_log_probs
):
    import dataclasses

    import torch

    options = dataclasses.replace(options, lr=1e-3, epochs=2)
    losses: list[float] = []
    figures = update(plugin(options), rows, context(checkpoint, other_checkpoint, losses=losses))

    model, reference = load64(checkpoint), load64(other_checkpoint)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    by_hand = []
    for _ in range(2):
        nll = 0.0 if kind == "sppo" else options.nll
        loss, ratios = loss_by_hand(kind, options.beta, nll, model, reference, sequences, token_log_probs)
        by_hand.append(loss.item())
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
    assert losses == pytest.approx(by_hand, rel=1e-4)
    assert abs(by_hand[1] - by_hand[0]) > 1e-2  # the second loss says something about the gradient of the first step
    assert figures["loss"] == losses[-1]
    assert figures["reward_accuracy"] == pytest.approx(sum(won > lost for won, lost in ratios) / 3)
    assert figures["chosen_change"] == pytest.approx(sum(won for won, _ in ratios) / 3, rel=1e-4)
    assert figures["rejected_change"] == pytest.approx(sum(lost for _, lost in ratios) / 3, rel=1e-4)
    assert (figures["steps"], figures["rows"], figures["too_long"]) == (2, 3, 0)


@pytest.mark.parametrize("lora", [0, 4])
@pytest.mark.parametrize(
    ("plugin", "options", "first"),
    [(Dpo, DpoConfig(), math.log(2)), (Ipo, IpoConfig(beta=0.5), 1.0), (Sppo, SppoConfig(beta=0.5), 2.0)],
)
def test_the_start_is_the_reference(plugin, options, first, lora, rows, context, update, checkpoint, tmp_path):
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
    update(plugin(options), rows, context(start, lora=lora, losses=losses))
    assert losses[0] == pytest.approx(first, abs=1e-6)


def test_adapters_against_another_reference(
    rows, sequences, context, update, checkpoint, other_checkpoint, load64, token_log_probs
):
    losses: list[float] = []
    update(Dpo(DpoConfig()), rows, context(checkpoint, other_checkpoint, lora=4, losses=losses))
    by_hand, _ = loss_by_hand("dpo", 0.1, 0.0, load64(checkpoint), load64(other_checkpoint), sequences, token_log_probs)
    assert losses[0] == pytest.approx(by_hand.item(), rel=1e-5)


def test_adapters_are_merged(rows, context, update, checkpoint):
    import torch
    from transformers import AutoModelForCausalLM

    made = context(lora=4)
    update(Dpo(DpoConfig(lr=1e-2, epochs=3)), rows, made)
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (checkpoint, made.out))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name}
    assert "adapter_config.json" not in {file.name for file in made.out.iterdir()}


def test_dropout_of_the_adapters_is_used(rows, context, update):
    plain, noisy = [], []
    for dropout, losses in ((0.0, plain), (0.4, noisy)):
        update(Dpo(DpoConfig(lr=1e-2)), rows, context(lora=4, lora_dropout=dropout, losses=losses))
    assert plain[0] == pytest.approx(noisy[0])  # a new adapter adds nothing yet
    assert plain[1] != pytest.approx(noisy[1], rel=1e-4)


def test_the_reference_is_without_dropout(rows, context, update):
    first = []
    for dropout in (0.0, 0.4):
        losses: list[float] = []
        update(Dpo(DpoConfig(dropout=dropout)), rows, context(losses=losses))
        first.append(losses[0])
    assert first[0] == pytest.approx(math.log(2), abs=1e-6)
    assert first[1] != pytest.approx(math.log(2), abs=1e-3)


def test_the_head_reads_the_answers_alone(rows, sequences, context, update, monkeypatch):
    from trl.trainer import utils

    head, read = utils._ChunkedLogProbFunction, []

    class Heard:
        @staticmethod
        def apply(hidden, *given):
            read.append(len(hidden))
            return head.apply(hidden, *given)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Heard)
    update(Dpo(DpoConfig(epochs=1, batch_size=3)), rows, context())
    tokens = sum(len(chosen) + len(rejected) for _, chosen, rejected in sequences)
    assert read == [tokens, tokens]  # by the reference, and in the step


def test_training_prefers_the_chosen_and_repeats_to_the_byte(pair, context, update):
    rows = [pair(f"say:{n}", "yes" * (n % 4 + 1), "no" * (n % 3 + 1)) for n in range(24)]
    options, made = DpoConfig(lr=3e-3, epochs=4, batch_size=8, nll=0.2), [context(), context()]
    figures = [update(Dpo(options), rows, one) for one in made]
    assert figures[0] == figures[1]
    assert figures[0]["reward_accuracy"] == 1.0
    assert figures[0]["loss"] < 1.2
    assert figures[0]["chosen_change"] > 0 > figures[0]["rejected_change"]
    first, again = ((one.out / "model.safetensors").read_bytes() for one in made)
    assert first == again


@pytest.mark.parametrize("ids", [((), ()), ((9, 8, END), (9, 8, END))])
def test_a_pair_of_equals_is_refused(ids, pair, rows, context, update):
    made = context()
    with pytest.raises(StageError, match=r"prompt p1: the chosen answer c1 and the rejected answer c2 are the same"):
        update(Dpo(DpoConfig()), [*rows, pair("which?", "this", "this", *ids)], made)
    assert not any(made.out.iterdir())


def test_rows_that_do_not_fit_are_dropped_and_counted(rows, pair, context, update):
    rows = [*rows, pair("long", "y" * 60, "n"), pair("long", "y", "n" * 60)]
    figures = update(Dpo(DpoConfig(epochs=1, max_length=40)), rows, context())
    assert (figures["rows"], figures["too_long"]) == (3, 2)


def test_divergence_is_an_error_and_saves_nothing(rows, context, update):
    made = context()
    with pytest.raises(StageError, match=r"diverged at step \d+ of 20"):
        update(Dpo(DpoConfig(lr=1e30, epochs=20)), rows, made)
    assert not any(made.out.iterdir())
