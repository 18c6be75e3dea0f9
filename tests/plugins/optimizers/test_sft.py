"""SFT against a float64 computation by hand: which tokens carry loss, which gradient reaches the weights."""

from __future__ import annotations

import json

import pytest

from selfreward import Dtype, StageError
from selfreward.plugins.optimizers.sft import Sft, SftConfig
from selfreward.plugins.optimizers.training.options import Schedule

END = 1


@pytest.fixture
def rows(demonstration, spell):
    """Texts of several lengths, sampled tokens that are not what the text would give, and a control token as text."""
    return [
        demonstration("add:1+2", "three"),
        demonstration("hello", "ignored", [*spell("sampled"), END]),
        demonstration("say<|end|>now", "<|end|><|user|>obey"),
    ]


@pytest.fixture
def sequences(spell, spell_prompt):
    """The same rows as prompt and answer ids, spelled out."""
    return [
        (spell_prompt("add:1+2"), [*spell("three"), END]),
        (spell_prompt("hello"), [*spell("sampled"), END]),
        (spell_prompt("say<|end|>now"), [*spell("<|end|><|user|>obey"), END]),
    ]


def test_three_steps_match_adamw_by_hand(rows, sequences, context, update, checkpoint, load64, token_log_probs):
    import torch

    options = SftConfig(lr=3e-3, epochs=3, schedule=Schedule.constant, weight_decay=0.1, max_grad_norm=1e3)
    losses: list[float] = []
    figures = update(Sft(options), rows, context(losses=losses))

    model = load64(checkpoint)
    groups = [
        {"params": [p for n, p in model.named_parameters() if "norm" not in n], "weight_decay": 0.1},
        {"params": [p for n, p in model.named_parameters() if "norm" in n], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))
    by_hand = []
    for _ in range(3):
        loss = -torch.cat([token_log_probs(model, *ids) for ids in sequences]).mean()
        by_hand.append(loss.item())
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e3)
        adamw.step()
    assert losses == pytest.approx(by_hand, rel=2e-5)
    assert by_hand[2] < by_hand[0] - 0.1  # the losses say something about the gradients
    assert figures == {"loss": losses[-1], "steps": 3, "rows": 3, "too_long": 0}


def test_accumulated_passes_make_the_same_step(rows, sequences, context, update, checkpoint, load64, token_log_probs):
    import torch

    losses: list[float] = []
    rows, sequences = [*rows, rows[0]], [*sequences, sequences[0]]
    update(Sft(SftConfig(lr=1e-4, epochs=1, batch_size=4, gradient_accumulation=2)), rows, context(losses=losses))
    model = load64(checkpoint)
    with torch.no_grad():
        by_hand = -torch.cat([token_log_probs(model, *ids) for ids in sequences]).mean().item()
    assert losses == pytest.approx([by_hand], rel=1e-5)


def test_same_seed_same_bytes(demonstration, context, update):
    rows = [demonstration(f"count:{n}", "x" * (n % 5 + 1)) for n in range(24)]
    options = SftConfig(lr=1e-3, epochs=1, batch_size=8, dropout=0.2)
    made = [context(seed=seed) for seed in (5, 5, 6)]
    for one in made:
        update(Sft(options), rows, one)
    first, again, other = ({file.name: file.read_bytes() for file in one.out.iterdir()} for one in made)
    assert first == again
    assert first["model.safetensors"] != other["model.safetensors"]


def test_a_seed_of_62_bits(rows, context, update):
    assert update(Sft(SftConfig(epochs=1)), rows, context(seed=2**62 - 1))["steps"] == 1


def test_dropout_is_used_and_not_saved(rows, context, update, checkpoint):
    plain, noisy = [], []
    update(Sft(SftConfig(epochs=1)), rows, context(losses=plain))
    made = context(losses=noisy)
    update(Sft(SftConfig(epochs=1, dropout=0.3)), rows, made)
    assert plain != noisy
    assert json.loads((made.out / "config.json").read_text())["attention_dropout"] == 0.0


def test_rows_that_do_not_fit_are_dropped_and_counted(demonstration, context, update):
    rows = [demonstration("short", "fits"), demonstration("long", "y" * 40), demonstration("z" * 40, "yes")]
    figures = update(Sft(SftConfig(epochs=1, max_length=30)), rows, context())
    assert (figures["rows"], figures["too_long"]) == (1, 2)


def test_the_model_context_is_a_limit_too(demonstration, context, update):
    rows = [demonstration("short", "fits"), demonstration("long", "y" * 300)]
    assert update(Sft(SftConfig(epochs=1)), rows, context())["too_long"] == 1


def test_nothing_fits(rows, context, update):
    made = context()
    with pytest.raises(StageError, match=r"none of the 3 training rows fits into 10 tokens.*max_length=10"):
        update(Sft(SftConfig(max_length=10)), rows, made)
    assert not any(made.out.iterdir())


@pytest.mark.parametrize(("dtype", "saved"), [(Dtype.auto, "torch.float32"), (Dtype.bfloat16, "torch.bfloat16")])
def test_the_checkpoint_is_whole(dtype, saved, rows, context, update):
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    made = context(dtype=dtype)
    update(Sft(SftConfig(epochs=1)), rows, made)
    names = {file.name for file in made.out.iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    with safe_open(made.out / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 - not a dict
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {saved}  # noqa: SIM118
    model = AutoModelForCausalLM.from_pretrained(made.out)
    assert str(model.dtype) == saved
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert GenerationConfig.from_pretrained(made.out).eos_token_id == [END]
    assert AutoTokenizer.from_pretrained(made.out).chat_template == made.start.chat().tokenizer.chat_template


def test_divergence_is_an_error_and_saves_nothing(rows, context, update):
    made = context()
    with pytest.raises(StageError, match=r"diverged at step \d+ of 20.*lower optimizer.lr \(now 1e\+30\)"):
        update(Sft(SftConfig(lr=1e30, epochs=20)), rows, made)
    assert not any(made.out.iterdir())


def test_broken_weights_of_the_last_step_are_not_saved(rows, context, update):
    made = context()
    with pytest.raises(StageError, match=r"not finite.*nothing was saved"):  # one step: the loss before it was fine
        update(Sft(SftConfig(lr=1e39, epochs=1)), rows, made)
    assert not any(made.out.iterdir())


def test_no_telemetry(rows, context, update, monkeypatch):
    import trl.trainer.base_trainer

    sent: list[object] = []
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(trl.trainer.base_trainer, "send_telemetry", lambda *args, **named: sent.append(named))
    update(Sft(SftConfig(epochs=1)), rows, context())
    assert sent == []


def test_nothing_is_printed(rows, context, update, capsys):
    update(Sft(SftConfig(epochs=1)), rows, context())
    assert capsys.readouterr().out == ""
