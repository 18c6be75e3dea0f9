"""SimPO and ORPO against a float64 computation by hand and TRL's experimental losses; no reference is touched."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from types import SimpleNamespace

import pytest

from selfreward import Demonstration, StageError, TrainingSet
from selfreward.plugins.optimizers.reference_free import Orpo, OrpoConfig, Simpo, SimpoConfig
from selfreward.plugins.optimizers.training.options import Schedule
from selfreward.plugins.optimizers.trl_trainer.holdout import split

END = 1
TEXTS = [("add:1+2", "three", "four,I-think"), ("hello", "hi", "go-away"), ("say<|end|>", "<|end|>", "no")]
CASES = [
    (Simpo, SimpoConfig()),
    (Simpo, SimpoConfig(beta=2.5, gamma=0.3, nll=0.5)),
    (Orpo, OrpoConfig()),
    (Orpo, OrpoConfig(beta=1.5)),
]


@pytest.fixture
def rows(pair, spell):
    """Texts, sampled tokens that are not what the texts would give, and a control token as text."""
    first, (prompt, *answers), last = TEXTS
    return [pair(*first), pair(prompt, "ignored", "ignored", *([*spell(a), END] for a in answers)), pair(*last)]


def loss_by_hand(options, model, spell, spell_prompt, token_log_probs, texts=TEXTS):
    """The mean loss of the pairs, and the log-probabilities per token (chosen, rejected) of each."""
    import torch

    losses, means = [], []
    for prompt, *answers in texts:
        won, lost = (token_log_probs(model, spell_prompt(prompt), [*spell(text), END]).mean() for text in answers)
        if isinstance(options, SimpoConfig):
            margin = options.beta * won - options.beta * lost - options.gamma
            losses.append(torch.log1p(torch.exp(-margin)) - options.nll * won)
        else:
            odds_ratio = (won.exp() / (1 - won.exp())) / (lost.exp() / (1 - lost.exp()))
            losses.append(-won + options.beta * torch.log(1 + 1 / odds_ratio))
        means.append((won.item(), lost.item()))
    return torch.stack(losses).mean(), means


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize(("plugin", "options"), CASES)
def test_two_steps_match_adamw_by_hand(
    plugin, options, passes, rows, context, update, checkpoint, load64, spell, spell_prompt, token_log_probs
):
    import torch

    steps = {"lr": 1e-3, "epochs": 2, "batch_size": 3, "schedule": Schedule.constant, "gradient_accumulation": passes}
    options = dataclasses.replace(options, **steps)
    losses: list[float] = []
    made = context(losses=losses)
    figures = update(plugin(options), rows, made)

    model = load64(checkpoint)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    by_hand = []
    for _ in range(2):
        loss, means = loss_by_hand(options, model, spell, spell_prompt, token_log_probs)
        by_hand.append(loss.item())
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
    assert losses == pytest.approx(by_hand, rel=1e-4)
    assert abs(by_hand[1] - by_hand[0]) > 1e-2
    assert figures["loss"] == losses[-1]
    assert figures["reward_accuracy"] == pytest.approx(sum(won > lost for won, lost in means) / 3)
    assert figures["chosen_log_prob"] == pytest.approx(sum(won for won, _ in means) / 3, rel=1e-4)
    assert figures["rejected_log_prob"] == pytest.approx(sum(lost for _, lost in means) / 3, rel=1e-4)
    assert (figures["steps"], figures["rows"], figures["too_long"]) == (2, 3, 0)
    trained = load64(made.out)
    for name, weight in trained.named_parameters():
        torch.testing.assert_close(weight, model.get_parameter(name), rtol=1e-2, atol=5e-5)


def test_the_losses_are_those_of_trl():
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.cpo import CPOTrainer
        from trl.experimental.orpo import ORPOTrainer

    chosen, rejected = -torch.rand(2, 50, generator=torch.Generator().manual_seed(0)) * 4
    here = SimpleNamespace(device="cpu")
    simpo = SimpleNamespace(
        loss_type="simpo", beta=2.5, simpo_gamma=0.7, alpha=0.0, label_smoothing=0, accelerator=here
    )
    torch.testing.assert_close(
        Simpo(SimpoConfig(beta=2.5, gamma=0.7)).losses(chosen, rejected),
        CPOTrainer.cpo_loss(simpo, chosen, rejected)[0],
    )
    orpo = SimpleNamespace(beta=0.3, accelerator=here)
    odds = -ORPOTrainer.odds_ratio_loss(orpo, chosen, rejected)[0]
    torch.testing.assert_close(Orpo(OrpoConfig(beta=0.3)).losses(chosen, rejected), -chosen + odds)


@pytest.mark.parametrize("value", [-1e-7, -1e-9, -200.0])
def test_odds_of_what_is_all_but_certain_have_a_gradient(value):
    import torch

    chosen, rejected = (torch.tensor([p], requires_grad=True) for p in (value, -1.0))
    losses = Orpo(OrpoConfig()).losses(chosen, rejected)
    losses.sum().backward()
    assert torch.isfinite(torch.stack([losses.detach(), chosen.grad, rejected.grad])).all()


@pytest.mark.parametrize(("plugin", "options"), [CASES[0], CASES[2]])
def test_no_reference_is_loaded_or_asked(plugin, options, rows, context, update, checkpoint, tmp_path, monkeypatch):
    """The reference's folder is empty, and the folder that the start remembers it was made from is another model's."""
    from transformers import AutoModelForCausalLM
    from trl import DPOTrainer

    start = shutil.copytree(checkpoint, tmp_path / "start")
    loaded = []
    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda path, **given: loaded.append(str(path)) or load(path, **given)
    )
    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", None)
    update(plugin(options), rows, context(start, tmp_path / "nothing"))
    assert loaded == [str(start)]


def test_a_reference_that_would_be_ignored_is_refused():
    assert SimpoConfig(reference="M0").problems() == ["reference: this loss has none; leave it at start"]
    assert not OrpoConfig().problems()
    assert len(OrpoConfig(reference="M0", batch_size=3, gradient_accumulation=2).problems()) == 2


@pytest.mark.parametrize(("plugin", "options"), [CASES[0], CASES[2]])
def test_training_prefers_the_chosen_and_repeats_to_the_byte(plugin, options, pair, context, update):
    rows = [pair(f"say:{n}", "yes" * (n % 4 + 1), "no" * (n % 3 + 1)) for n in range(24)]
    options = dataclasses.replace(options, lr=3e-3, epochs=4, batch_size=8)
    made = [context(lora=4), context(lora=4)]
    figures = [update(plugin(options), rows, one) for one in made]
    assert figures[0] == figures[1]
    assert figures[0]["chosen_log_prob"] > figures[0]["rejected_log_prob"] + 0.1
    first, again = ((one.out / "model.safetensors").read_bytes() for one in made)
    assert first == again
    assert "adapter_config.json" not in {file.name for file in made[0].out.iterdir()}


@pytest.mark.parametrize(("plugin", "options"), CASES)
def test_held_out_pairs_are_measured_with_the_loss(
    plugin, options, pair, context, update, load64, spell, spell_prompt, token_log_probs
):
    texts = [(f"say:{n}", "yes" * (n % 4 + 1), "no" * (n % 3 + 1)) for n in range(10)]
    rows = [dataclasses.replace(pair(*row), prompt_id=row[0]) for row in texts]
    options = dataclasses.replace(options, lr=1e-3, epochs=1, batch_size=4, holdout=0.3)
    made = context()
    figures = update(plugin(options), rows, made)
    _, held_out = split([{"prompt_id": row[0], "texts": row} for row in texts], 0.3)
    held_out = [row["texts"] for row in held_out]
    loss, means = loss_by_hand(options, load64(made.out), spell, spell_prompt, token_log_probs, held_out)
    assert figures["holdout_loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert figures["holdout_accuracy"] == pytest.approx(sum(won > lost for won, lost in means) / len(means))


def test_replay_is_added(
    rows, demonstration, context, update, checkpoint, load64, spell, spell_prompt, token_log_probs
):
    seed = demonstration("name-a-color", "red")
    losses: list[float] = []
    made = dataclasses.replace(context(losses=losses), replay=TrainingSet(Demonstration, 1, lambda: iter([seed])))
    options = SimpoConfig(epochs=1, replay=0.3)
    figures = update(Simpo(options), rows, made)
    model = load64(checkpoint)
    imitated = -token_log_probs(model, spell_prompt("name-a-color"), [*spell("red"), END]).mean()
    loss, _ = loss_by_hand(options, model, spell, spell_prompt, token_log_probs)
    assert losses[0] == pytest.approx((loss + 0.3 * imitated).item(), rel=1e-5)
    assert (figures["replay_loss"], figures["replay_rows"]) == (pytest.approx(imitated.item(), rel=1e-5), 1)


@pytest.mark.parametrize(("plugin", "options"), [CASES[0], CASES[2]])
def test_what_cannot_be_trained_on(plugin, options, rows, pair, context, update):
    made = context()
    with pytest.raises(StageError, match=r"prompt p1: the chosen answer c1 and the rejected answer c2 are the same"):
        update(plugin(options), [*rows, pair("which?", "this", "this")], made)
    with pytest.raises(StageError, match=r"diverged at step \d+ of 20"):
        update(plugin(dataclasses.replace(options, lr=1e30, epochs=20)), rows, made)
    assert not any(made.out.iterdir())
    few = dataclasses.replace(options, epochs=1, max_length=40)
    figures = update(plugin(few), [*rows, pair("long", "y" * 60, "n"), pair("long", "y", "n" * 60)], context())
    assert (figures["rows"], figures["too_long"]) == (3, 2)
