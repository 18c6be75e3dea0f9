"""Early stopping: what is held out, what is measured on it against float64 by hand, and which weights are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import Demonstration, Preference, StageError
from selfreward.plugins.optimizers.preference import Dpo, DpoConfig, Ipo, IpoConfig
from selfreward.plugins.optimizers.sft import Sft, SftConfig
from selfreward.plugins.optimizers.trl_trainer.holdout import split

END = 1
EARLY = {"epochs": 12, "batch_size": 4, "holdout": 0.3, "eval_steps": 2, "patience": 2}
TEXTS = [
    (f"count:{n}", "x" * (n * 7 % 22 + 1) + str(n), "x" * ((n + 22) * 7 % 22 + 1) + str(n + 22)) for n in range(22)
]


def table(plugin):
    """Rows of many lengths, each with a prompt of its own."""
    turns = [[[{"role": r, "content": t}] for r, t in zip(("user", "assistant", "assistant"), row, strict=True)]
             for row in TEXTS]  # fmt: skip
    if plugin is Sft:
        return [Demonstration(p, c, 5.0, [], f"p{n}", "c") for n, (p, c, _) in enumerate(turns)]
    return [Preference(*row, 4.0, 1.0, [], [], f"p{n}", "c", "d") for n, row in enumerate(turns)]


def held_out_texts():
    _, held_out = split([{"prompt_id": f"p{n}", "texts": texts} for n, texts in enumerate(TEXTS)], 0.3)
    return [row["texts"] for row in held_out]


# --------------------------------------------------------------------------------------------------- what is held out

prompts = st.lists(st.sampled_from([f"prompt {n}" for n in range(12)]), min_size=1, max_size=40)


@given(prompts, st.floats(0.0, 0.6), st.randoms())
def test_a_share_of_the_prompts_whatever_the_order(ids, share, chance):
    rows = [{"prompt_id": prompt, "n": n} for n, prompt in enumerate(ids)]
    if share and len(set(ids)) == 1:
        with pytest.raises(StageError, match=r"optimizer.holdout=.* of 1 training prompts leaves nothing to train on"):
            split(rows, share)
        return
    training, held_out = split(rows, share)
    assert sorted([*training, *held_out], key=lambda row: row["n"]) == rows
    inside, outside = ({row["prompt_id"] for row in part} for part in (training, held_out))
    assert not inside & outside
    assert abs(len(outside) - share * len(set(ids))) <= (1 if share else 0)
    assert bool(outside) == bool(share)
    again = chance.sample(rows, len(rows))
    assert {row["prompt_id"] for row in split(again, share)[1]} == outside


def test_more_prompts_put_few_in_another_place():
    """Two selectors that keep different prompts are measured on nearly the same ones."""
    many, fewer = ([{"prompt_id": f"p{n}"} for n in range(count)] for count in (200, 190))
    first, second = ({row["prompt_id"] for row in split(rows, 0.1)[1]} for rows in (many, fewer))
    assert len(second - first) <= 1


# -------------------------------------------------------------------------------------------------- what is measured


def losses_by_hand(plugin, model, reference, spell, spell_prompt, token_log_probs):
    """Loss and accuracy of the held-out rows."""
    import torch

    losses, right = [], []
    for prompt, chosen, rejected in held_out_texts():
        with torch.no_grad():
            asked, answers = spell_prompt(prompt), [[*spell(text), END] for text in (chosen, rejected)]
            if plugin is Sft:
                losses += (-token_log_probs(model, asked, answers[0])).tolist()
                logits = model(input_ids=torch.tensor([[*asked, *answers[0]]])).logits[0]
                right += (logits[len(asked) - 1 : -1].argmax(-1) == torch.tensor(answers[0])).tolist()
                continue
            won, lost = (
                token_log_probs(model, asked, ids).sum() - token_log_probs(reference, asked, ids).sum()
                for ids in answers
            )
            gap = won / len(answers[0]) - lost / len(answers[1])
            losses.append(((gap - 0.5) ** 2 if plugin is Ipo else torch.log1p(torch.exp(-0.1 * (won - lost)))).item())
            right.append((won > lost).item())
    return sum(losses) / len(losses), sum(right) / len(right)


@pytest.mark.parametrize(
    ("plugin", "options", "lora", "stops"),
    [
        (Sft, SftConfig(**EARLY, lr=2e-2), 0, True),
        (Dpo, DpoConfig(**EARLY, lr=4e-2), 4, True),
        (Dpo, DpoConfig(**EARLY, lr=3e-3, dropout=0.2), 0, False),
        (Ipo, IpoConfig(**EARLY, lr=8e-3, gradient_accumulation=2), 0, True),
    ],
)
def test_the_kept_weights_have_the_loss_that_is_told(
    plugin, options, lora, stops, context, update, checkpoint, other_checkpoint, load64, spell, spell_prompt,
    token_log_probs,
):  # fmt: skip
    made = context(checkpoint, other_checkpoint, lora=lora)
    figures = update(plugin(options), table(plugin), made)
    by_hand = losses_by_hand(plugin, load64(made.out), load64(other_checkpoint), spell, spell_prompt, token_log_probs)
    assert (figures["holdout_loss"], figures["holdout_accuracy"]) == pytest.approx(by_hand, rel=1e-4)
    assert (figures["rows"], figures["holdout_rows"]) == (15, 7)
    assert figures["best_step"] % 2 == 0
    assert figures["stopped_early"] == stops
    if stops:  # the weights at the end were others
        assert figures["steps"] == figures["best_step"] + 4 < 48


def test_without_patience_it_trains_to_the_end_and_keeps_the_best(context, update):
    first, second = (
        update(Sft(SftConfig(**EARLY | {"patience": patience}, lr=2e-2)), table(Sft), context()) for patience in (2, 0)
    )
    assert first["steps"] < second["steps"] == 48
    assert not second["stopped_early"]
    assert second["holdout_loss"] <= first["holdout_loss"]


def test_measuring_changes_no_byte_of_the_training(context, update):
    """As training on the other rows alone, where the last weights are the best ones."""
    measured, plain = (context() for _ in range(2))
    options = {"epochs": 2, "batch_size": 4, "lr": 3e-3}
    figures = update(Dpo(DpoConfig(**options, holdout=0.3, eval_steps=3)), table(Dpo), measured)
    rows = [row for row in table(Dpo) if row.prompt[0]["content"] not in {texts[0] for texts in held_out_texts()}]
    assert update(Dpo(DpoConfig(**options)), rows, plain).items() <= figures.items()
    assert figures["best_step"] == figures["steps"] == 8
    assert (measured.out / "model.safetensors").read_bytes() == (plain.out / "model.safetensors").read_bytes()


def test_a_step_count_between_measurements_that_is_never_reached(context, update):
    figures = update(Sft(SftConfig(epochs=1, batch_size=4, holdout=0.3)), table(Sft), context())
    assert (figures["best_step"], figures["steps"], figures["stopped_early"]) == (4, 4, False)


def test_figures_of_held_out_prompts_only_where_there_are_any(context, update):
    figures = update(Sft(SftConfig(epochs=1)), table(Sft), context())
    assert figures.keys() == {"loss", "steps", "rows", "too_long"}
