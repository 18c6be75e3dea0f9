"""The reward model against a float64 computation by hand: loss, head, zero point, padding, and what is saved."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from selfreward import Dtype, ModelRef, Preference, StageError
from selfreward.plugins.optimizers.reward_model import RewardModel, RewardModelConfig, free_pad_id
from selfreward.plugins.optimizers.training.options import Schedule
from selfreward.plugins.optimizers.trl_trainer.holdout import split

PAD, END = 0, 1
STEADY = {"lr": 1e-3, "epochs": 2, "schedule": Schedule.constant, "max_grad_norm": 1e3}


@pytest.fixture
def rows(pair, spell):
    """Texts, sampled tokens that are not what the texts would give, and a control token as text; scores 4 and 1."""
    return [
        pair("add:1+2", "three", "four,I-think"),
        pair("hello", "ignored", "ignored", [*spell("hi"), END], [*spell("go-away"), END]),
        pair("say<|end|>", "<|end|>", "no"),
    ]


@pytest.fixture
def sequences(spell, spell_prompt):
    """The same rows as (prompt and chosen, prompt and rejected) ids, spelled out."""
    texts = [("add:1+2", "three", "four,I-think"), ("hello", "hi", "go-away"), ("say<|end|>", "<|end|>", "no")]
    return [tuple([*spell_prompt(p), *spell(answer), END] for answer in answers) for p, *answers in texts]


def load(folder: Path, seed: int | None = None):
    """A reward model in float64, or a language model with a head drawn from the seed."""
    import torch
    from transformers import AutoModelForSequenceClassification

    if seed is not None:
        torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32).double()


def reward(model, ids):
    """The head's output at the last of the ids."""
    import torch

    return model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1] @ model.score.weight[0]


def loss_by_hand(model, sequences, center=0.0, gap=0.0):
    """The mean loss of the pairs."""
    import torch

    losses = []
    for chosen, rejected in sequences:
        first, second = reward(model, chosen), reward(model, rejected)
        losses.append(torch.log1p(torch.exp(gap - (first - second))) + center * (first + second) ** 2)
    return torch.stack(losses).mean()


# ---------------------------------------------------------------------------------------------------- loss and gradient


@pytest.mark.parametrize(("center", "margin"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.5)])
def test_two_steps_match_adamw_by_hand(center, margin, rows, sequences, context, update, checkpoint):
    import torch

    losses: list[float] = []
    made = context(seed=3, losses=losses)
    figures = update(RewardModel(RewardModelConfig(**STEADY, center=center, margin=margin)), rows, made)

    model = load(checkpoint, seed=3)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    by_hand = []
    for _ in range(2):
        loss = loss_by_hand(model, sequences, center, 3 * margin)
        accuracy = sum(reward(model, chosen) > reward(model, rejected) for chosen, rejected in sequences) / 3
        by_hand.append(loss.item())
        adamw.zero_grad()
        loss.backward()
        adamw.step()
    assert losses == pytest.approx(by_hand, rel=1e-4)
    assert abs(by_hand[1] - by_hand[0]) > 1e-2  # the second loss says something about the gradient of the first step
    assert figures["loss"] == losses[-1]
    assert figures["accuracy"] == pytest.approx(accuracy.item())
    assert (figures["steps"], figures["rows"], figures["too_long"]) == (2, 3, 0)
    saved = load(made.out)
    for chosen, rejected in sequences:
        for ids in (chosen, rejected):
            assert reward(saved, ids).item() == pytest.approx(reward(model, ids).item(), abs=1e-3)


def test_the_head_depends_on_the_seed_and_on_nothing_else(rows, context, update):
    import torch

    files = []
    for noise, seed in ((1, 5), (2, 5), (3, 6)):
        torch.manual_seed(noise)
        made = context(seed=seed)
        update(RewardModel(RewardModelConfig(dropout=0.1)), rows, made)
        files.append({file.name: file.read_bytes() for file in made.out.iterdir()})
    first, again, other = files
    assert first == again
    assert first["model.safetensors"] != other["model.safetensors"]


def test_it_goes_on_from_a_reward_model(rows, sequences, context, update):
    first, second, losses = context(), context(seed=8), []
    update(RewardModel(RewardModelConfig(**STEADY)), rows, first)
    assert shift_of(first.out) != 0
    going_on = context(first.out, seed=8, losses=losses)
    update(RewardModel(RewardModelConfig(lr=1e-12, normalise=False)), rows, going_on)
    update(RewardModel(RewardModelConfig(**STEADY)), rows, second)
    assert losses[0] == pytest.approx(loss_by_hand(load(first.out), sequences).item(), rel=1e-5)
    before, after, anew = (load(made.out).score.weight[0].tolist() for made in (first, going_on, second))
    assert after == pytest.approx(before, abs=1e-6)
    assert anew != pytest.approx(before, abs=1e-2)
    assert shift_of(going_on.out) == 0  # of its own, not that of the start


def test_training_prefers_the_chosen(pair, context, update):
    rows = [pair(f"say:{n}", "yes" * (n % 4 + 1), "no" * (n % 3 + 1)) for n in range(24)]
    figures = update(RewardModel(RewardModelConfig(lr=3e-3, epochs=4, batch_size=8)), rows, context())
    assert figures["accuracy"] == 1.0
    assert figures["loss"] < 0.3


def test_held_out_pairs_are_measured(context, update, spell, spell_prompt):
    texts = [(f"count:{n}", "x" * (n * 7 % 22 + 1) + str(n), "x" * ((n + 22) * 7 % 22 + 1)) for n in range(22)]
    turns = [[[{"role": "user", "content": a}], *([{"role": "assistant", "content": t}] for t in b)] for a, *b in texts]
    rows = [Preference(*row, 4.0, 1.0, [], [], f"p{n}", "c", "d") for n, row in enumerate(turns)]
    made = context()
    options = RewardModelConfig(
        lr=8e-3, epochs=12, batch_size=4, holdout=0.3, eval_steps=2, patience=2, center=0.1, margin=0.1
    )
    figures = update(RewardModel(options), rows, made)
    _, held_out = split([{"prompt_id": row.prompt_id, "row": row} for row in rows], 0.3)
    pairs = []
    for row in (each["row"] for each in held_out):
        asked, answers = spell_prompt(row.prompt[0]["content"]), (row.chosen[0]["content"], row.rejected[0]["content"])
        pairs.append([[*asked, *spell(answer), END] for answer in answers])
    model = load(made.out)
    assert figures["holdout_loss"] == pytest.approx(loss_by_hand(model, pairs, 0.1, 0.3).item(), rel=1e-4)
    right = sum((reward(model, chosen) > reward(model, rejected)).item() for chosen, rejected in pairs)
    assert figures["holdout_accuracy"] == pytest.approx(right / 7)
    assert (figures["rows"], figures["holdout_rows"], figures["stopped_early"]) == (15, 7, True)


# ----------------------------------------------------------------------------------------------------------- zero point

OUTPUTS = [(f"ask:{n}", "word" * n) for n in range(1, 6)]
"""The data's demonstrations."""


def shift_of(folder: Path) -> float:
    return json.loads((folder / "config.json").read_text())["selfreward_reward_shift"]


def with_outputs(made, outputs=OUTPUTS):
    """The context of a run whose data has these demonstrations."""
    given = [([{"role": "user", "content": asked}], reply) for asked, reply in outputs]
    return dataclasses.replace(made, reference_outputs=lambda: iter(given))


def engine_rewards(folder: Path, made, outputs):
    """What the engine says of them."""
    from selfreward import Continuations
    from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine

    engine = TransformersEngine(TransformersConfig(device="cpu"))
    engine.open(ModelRef("reward", str(folder), str(folder), made.start.config))
    asked = [Continuations([{"role": "user", "content": asked}], [reply]) for asked, reply in outputs]
    found = engine.rewards(asked)
    engine.close()
    return [value for (value,) in found]


@pytest.mark.parametrize(
    ("dtype", "lora", "cap", "counted"),
    [(Dtype.auto, 0, 512, OUTPUTS), (Dtype.auto, 4, 2, [OUTPUTS[0], OUTPUTS[2]]), (Dtype.bfloat16, 0, 5, OUTPUTS)],
)
def test_the_mean_reward_of_the_reference_outputs_is_0(
    dtype, lora, cap, counted, rows, context, update, spell, spell_prompt
):
    made = with_outputs(context(dtype=dtype, lora=lora))
    figures = update(RewardModel(RewardModelConfig(**STEADY, reference_rows=cap)), rows, made)
    model = load(made.out)
    heads = [reward(model, [*spell_prompt(asked), *spell(reply), END]).item() for asked, reply in counted]
    close = 1e-5 if dtype is Dtype.auto else 2e-2
    mean = sum(heads) / len(heads)
    assert abs(mean) > 0.1
    assert shift_of(made.out) == figures["shift"] == figures["reward_mean"] == pytest.approx(mean, abs=close)
    assert figures["reward_std"] == pytest.approx((sum((h - mean) ** 2 for h in heads) / len(heads)) ** 0.5, abs=close)
    assert figures["reference_rows"] == len(counted)
    assert engine_rewards(made.out, made, counted) == pytest.approx([h - mean for h in heads], abs=close)
    assert sum(engine_rewards(made.out, made, counted)) == pytest.approx(0, abs=1e-5)


def test_without_reference_outputs_the_training_answers_count(rows, sequences, context, update):
    made = with_outputs(context(), [])
    figures = update(RewardModel(RewardModelConfig(**STEADY)), rows, made)
    model = load(made.out)
    heads = [reward(model, ids).item() for row in sequences for ids in row]
    assert figures["shift"] == pytest.approx(sum(heads) / 6, abs=1e-5)
    assert update(RewardModel(RewardModelConfig(**STEADY)), rows, context()) == figures


def test_a_shift_of_0_where_none_is_wanted(rows, context, update):
    shifted, bare = context(), context()
    one = update(RewardModel(RewardModelConfig()), rows, shifted)
    two = update(RewardModel(RewardModelConfig(normalise=False)), rows, bare)
    assert shift_of(bare.out) == two["shift"] == 0
    assert two == one | {"shift": 0.0}


def test_reference_outputs_that_do_not_fit(rows, context, update):
    options = RewardModelConfig(max_length=30)
    long = ("long", "z" * 40)
    made = with_outputs(context(), [*OUTPUTS[:2], long])
    assert update(RewardModel(options), rows, made)["reference_rows"] == 2
    with pytest.raises(StageError, match=r"none of the 1 reference outputs fits into 30 tokens"):
        update(RewardModel(options), rows, with_outputs(context(), [long]))


# -------------------------------------------------------------------------------------------------------------- padding

PLAIN = (
    "{% for m in messages %}{{ m['role'] + ':' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def pads_with_its_end(folder: Path, source: Path, bare: bool) -> Path:
    """A checkpoint whose tokenizer pads with the token that ends a turn; ``bare``: it has no other control token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    if bare:
        spec = json.loads(tokenizer.backend_tokenizer.to_str())
        (folder.parent / "bare.json").write_text(json.dumps(spec | {"added_tokens": []}))
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(folder.parent / "bare.json"), eos_token="<|end|>", chat_template=PLAIN
        )
    else:
        tokenizer.pad_token = "<|end|>"
    model.config.pad_token_id = END
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("bare", [False, True])
def test_the_end_of_turn_is_read_where_it_pads_too(bare, rows, sequences, context, update, checkpoint, spell, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    start = pads_with_its_end(tmp_path / "start", checkpoint, bare)
    losses: list[float] = []
    made = context(start, losses=losses)
    assert made.start.chat().pad_id == END
    update(RewardModel(RewardModelConfig(**STEADY)), rows, made)
    if bare:
        texts = [("add:1+2", "three", "four,I-think"), ("hello", "hi", "go-away"), ("say<|end|>", "<|end|>", "no")]
        asked = [[*spell(f"user:{text}"), END, *spell("assistant:")] for text, *_ in texts]
        sequences = [[[*ids, *spell(a), END] for a in row[1:]] for ids, row in zip(asked, texts, strict=True)]
    assert losses[0] == pytest.approx(loss_by_hand(load(start, seed=7), sequences).item(), rel=1e-5)

    # as anybody reads it: by transformers' own forward, padded with what the checkpoint says
    model = AutoModelForSequenceClassification.from_pretrained(made.out)
    pad, longest = model.config.pad_token_id, max(len(ids) for row in sequences for ids in row)
    assert pad != END
    padded = [[*ids, *[pad] * (longest - len(ids))] for row in sequences for ids in row]
    heads = [reward(load(made.out), ids).item() for row in sequences for ids in row]
    assert model(torch.tensor(padded)).logits[:, 0].tolist() == pytest.approx(heads, abs=1e-5)
    if not bare:
        assert AutoTokenizer.from_pretrained(made.out).pad_token_id == pad
    saved = ModelRef("reward", str(made.out), "saved", made.start.config)
    assert saved.chat().encode(rows[2].prompt) == made.start.chat().encode(rows[2].prompt)


@pytest.mark.parametrize(
    ("last", "vocabulary", "free"), [([1], 261, 0), ([0, 1], 261, 2), ([0, 1, 2, 3, 4], 261, 5), ([0, 7], 261, 2)]
)
def test_the_padding_is_an_id_that_ends_no_answer(last, vocabulary, free, context):
    rows = [{"chosen_ids": [9, i], "rejected_ids": [0, 2, 3, 4, 5, 1]} for i in last]
    assert free_pad_id(context().start.chat(), rows, vocabulary) == free


# ------------------------------------------------------------------------------------------------------- what is saved


@pytest.mark.parametrize(("dtype", "saved"), [(Dtype.auto, "torch.float32"), (Dtype.bfloat16, "torch.bfloat16")])
@pytest.mark.parametrize("lora", [0, 4])
def test_the_checkpoint_is_whole(dtype, saved, lora, rows, context, update, checkpoint):
    import torch
    from safetensors.torch import load_file

    made = context(dtype=dtype, lora=lora)
    update(RewardModel(RewardModelConfig(lr=1e-2, epochs=3)), rows, made)
    names = {file.name for file in made.out.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert "adapter_config.json" not in names
    config = json.loads((made.out / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert list(config["id2label"]) == ["0"]
    weights = load_file(made.out / "model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {saved}
    before = load(checkpoint, seed=7).to(getattr(torch, saved.removeprefix("torch."))).state_dict()
    assert weights.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], weights[name])}
    assert changed == {name for name in before if not lora or "_proj" in name or name == "score.weight"}


def test_trained_adapters_and_head_are_what_is_saved(rows, sequences, context, update):
    first, losses = context(lora=4), []
    figures = update(RewardModel(RewardModelConfig(lr=1e-2, epochs=6)), rows, first)
    update(RewardModel(RewardModelConfig(lr=1e-12)), rows, context(first.out, losses=losses))
    assert losses[0] == pytest.approx(loss_by_hand(load(first.out), sequences).item(), rel=1e-5)
    assert losses[0] < figures["loss"]


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("ids", [((), ()), ((9, 8, END), (9, 8, END))])
def test_a_pair_of_equals_is_refused(ids, pair, rows, context, update):
    made = context()
    with pytest.raises(StageError, match=r"prompt p1: the chosen answer c1 and the rejected answer c2 are the same"):
        update(RewardModel(RewardModelConfig()), [*rows, pair("which?", "this", "this", *ids)], made)
    assert not any(made.out.iterdir())


def test_tokens_of_another_vocabulary_are_refused(pair, rows, context, update):
    made = context()
    alien = pair("hello", "ignored", "ignored", [500, END], [9, END])
    with pytest.raises(StageError, match=r"\(M1\) has a vocabulary of 261 .* tokenizer of 261.*up to 500.*init_"):
        update(RewardModel(RewardModelConfig()), [*rows, alien], made)
    assert not any(made.out.iterdir())


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(rows, context, update, checkpoint, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|more|>"]})
    AutoModelForCausalLM.from_pretrained(checkpoint).save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    with pytest.raises(StageError, match="vocabulary of 261 tokens and a tokenizer of 262"):
        update(RewardModel(RewardModelConfig()), rows, context(tmp_path / "start"))


def test_another_classifier_is_no_start(rows, context, update, checkpoint, tmp_path):
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=3).save_pretrained(tmp_path / "start")
    context().start.chat().save(tmp_path / "start")
    with pytest.raises(StageError, match="a classifier with 3 outputs is no reward model"):
        update(RewardModel(RewardModelConfig()), rows, context(tmp_path / "start"))


def test_rows_that_do_not_fit_are_dropped_and_counted(rows, pair, context, update):
    rows = [*rows, pair("long", "y" * 60, "n"), pair("long", "y", "n" * 60)]
    figures = update(RewardModel(RewardModelConfig(max_length=40)), rows, context())
    assert (figures["rows"], figures["too_long"]) == (3, 2)


@pytest.mark.parametrize(("lr", "epochs", "said"), [(1e30, 20, r"diverged at step \d+ of 20"), (1e39, 1, "not finite")])
def test_divergence_is_an_error_and_saves_nothing(lr, epochs, said, rows, context, update):
    made = context()
    with pytest.raises(StageError, match=said):
        update(RewardModel(RewardModelConfig(lr=lr, epochs=epochs)), rows, made)
    assert not any(made.out.iterdir())


def test_nothing_is_printed(rows, context, update, capsys):
    update(RewardModel(RewardModelConfig()), rows, context())
    assert capsys.readouterr().out == ""
