"""GRPO and RLOO: gradients against float64 by hand, learning, what teaches nothing, resume, stops."""

from __future__ import annotations

import dataclasses
import math

import pytest

from selfreward import LoraOptions, ModelConfig, StageError
from selfreward.plugins.optimizers.group_relative import Grpo, GrpoConfig, Loss, Rloo, RlooConfig, Scale

PAD, END = 0, 1
PLUGINS = {"grpo": (Grpo, GrpoConfig), "rloo": (Rloo, RlooConfig)}
both = pytest.mark.parametrize("kind", PLUGINS)


def even(candidate, step):
    """Share of even token ids: half of them at first."""
    return sum(token % 2 == 0 for token in candidate.token_ids) / len(candidate.token_ids)


def uneven(candidate, step):
    """As :func:`even`, in points, without a word on some answers, and nothing at all on those to one prompt."""
    bytes_ = sum(candidate.token_ids)
    return None if bytes_ % 5 == 0 else 5 * even(candidate, step)


# ------------------------------------------------------------------------------------------------------------ gradients


def log_probs(model, prompt, answer, temperature):
    import torch

    logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0] / temperature
    return logits[len(prompt) - 1 : -1].log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]


def advantages_by_hand(kind, scale, rewards):
    """Of groups of rewards, None where there is none."""
    everything = [reward for group in rewards for reward in group if reward is not None]

    def sd(values):
        mean = math.fsum(values) / len(values)
        return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))

    found = []
    for group in rewards:
        known = [reward for reward in group if reward is not None]
        for reward in group:
            if reward is None or len(known) < 2:
                found.append(0.0)
            elif kind == "rloo":
                found.append(reward - (math.fsum(known) - reward) / (len(known) - 1))
            else:
                by = 1.0 if scale == "none" else sd(known if scale == "group" else everything) + 1e-4
                found.append((reward - math.fsum(known) / len(known)) / by)
    return found


def loss_by_hand(kind, config, model, old, reference, groups, scores, temperature, spell_prompt):
    """The loss of a batch of answered prompts, from one sequence at a time."""
    import torch

    answers, rewards = [], []
    for text, group in groups:
        prompt = spell_prompt(text)
        for candidate in group.candidates:
            # TRL looks at the last token; an answer may have been cut off behind a sampled padding token
            kept = not config.mask_truncated or candidate.token_ids[-1] in (PAD, END)
            now = log_probs(model, prompt, candidate.token_ids, temperature) * kept
            with torch.no_grad():
                before, frozen = (
                    log_probs(m, prompt, candidate.token_ids, temperature) * kept for m in (old, reference)
                )
            answers.append((now, before, frozen, kept))
            score = next(scores)
            drift = (before - frozen).sum().item()
            rewards.append(score if score is None or kind == "grpo" else score - config.beta * drift)
    n = len(groups[0][1].candidates)
    rewards = [rewards[start : start + n] for start in range(0, len(rewards), n)]
    scale = config.scale_rewards.value if kind == "grpo" else ""
    weighed = zip(answers, advantages_by_hand(kind, scale, rewards), strict=True)
    low, high = 1 - config.epsilon, 1 + config.epsilon
    losses, tokens = [], 0
    for (now, before, frozen, kept), advantage in weighed:
        ratio = torch.exp((now - before) if kind == "grpo" else (now - before).sum())
        loss = -torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
        if kind == "grpo":
            kl = torch.exp(frozen - now) - (frozen - now) - 1
            loss = (loss + config.beta * kl * (ratio if config.unbiased_kl else 1)) * kept
            tokens += len(now) * kept
            loss = loss.mean() if config.loss_type is Loss.grpo else loss.sum()
        losses.append(loss)
    parts = len(losses)
    if kind == "grpo":
        parts = {Loss.grpo: parts, Loss.dr_grpo: parts * 512}.get(config.loss_type, tokens)
    return torch.stack(losses).sum() / parts


@pytest.fixture
def watched(monkeypatch):
    """(weights, gradients) by name at every step."""
    import accelerate

    seen = []
    clip = accelerate.Accelerator.clip_grad_norm_

    def watch(self, parameters, *given, **named):
        weights = list(parameters)
        seen.append([(weight.detach().clone(), weight.grad.clone()) for weight in weights])
        return clip(self, weights, *given, **named)

    monkeypatch.setattr(accelerate.Accelerator, "clip_grad_norm_", watch)
    return seen


CASES = {
    "grpo": ("grpo", {"lr": 3e-3}, 1.0),
    "grpo masked": ("grpo", {"lr": 3e-3, "mask_truncated": True, "scale_rewards": Scale.batch}, 1.0),
    "grpo unbiased": ("grpo", {"lr": 3e-3, "beta": 0.2, "unbiased_kl": True, "scale_rewards": Scale.none}, 0.7),
    "dapo": ("grpo", {"lr": 3e-3, "loss_type": Loss.dapo, "gradient_accumulation": 2, "beta": 0.0}, 1.0),
    "bnpo": ("grpo", {"lr": 3e-3, "loss_type": Loss.bnpo}, 1.3),
    "dr_grpo": ("grpo", {"lr": 3e-3, "loss_type": Loss.dr_grpo, "mask_truncated": True}, 1.0),
    "rloo": ("rloo", {"lr": 5e-5, "gradient_accumulation": 2}, 0.7),
    "rloo masked": ("rloo", {"lr": 3e-5, "mask_truncated": True}, 1.0),
    "rloo free": ("rloo", {"lr": 5e-5, "beta": 0.0}, 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_by_hand(
    case, online, update, instructions, watched, load64, checkpoint, other_checkpoint, spell_prompt
):
    """Of two steps on the same answers: in the second one the ratio is not 1, and is clipped for some."""
    import torch

    kind, options, temperature = CASES[case]
    plugin, config_class = PLUGINS[kind]
    config = config_class(batch_size=4, num_iterations=2, epsilon=0.1, max_grad_norm=1e3, **options)
    texts = ["add:1+2", "hello", "say<|end|>", "a-longer-question"]
    made = online(uneven, reference=other_checkpoint, temperature=temperature, n=5, max_new_tokens=12)
    figures = update(plugin(config), instructions(*texts), made)
    assert figures["steps"] == len(watched) == 2

    [(_, answered)], [(_, judgements)] = made.rollouts.sampled, made.rollouts.judged
    groups = [(group.prompt.text, group) for group in answered]
    unscored = sum(judgement.score is None for judgement in judgements)
    assert 0 < unscored == figures["unscored"] < 20
    assert any(c.finish_reason == "length" for _, g in groups for c in g.candidates)

    old, reference, model = load64(checkpoint), load64(other_checkpoint), load64(checkpoint)
    for step in watched:
        with torch.no_grad():
            for weight, (seen, _) in zip(model.parameters(), step, strict=True):
                weight.copy_(seen)
        scores = iter([judgement.score for judgement in judgements])
        loss = loss_by_hand(kind, config, model, old, reference, groups, scores, temperature, spell_prompt)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        for expected, (_, found) in zip(gradients, step, strict=True):
            scale = expected.abs().max().item()
            assert scale > 0 or case == "rloo masked"  # of which all answers that count are clipped in step 2
            assert (found.double() - expected).abs().max().item() <= 1e-3 * scale
    assert figures["clip_fraction"] > 0


def test_a_group_of_equal_scores_has_no_gradient_at_all(online, update, instructions, watched):
    """5.1 is no float32, and the mean of seven of them another number."""
    made = online(lambda candidate, step: 5.1 if step == 0 else even(candidate, step), n=7)
    figures = update(Grpo(GrpoConfig(beta=0.0, batch_size=2, epochs=2)), instructions("a", "b"), made)
    assert [max(grad.abs().max().item() for _, grad in step) > 0 for step in watched] == [False, True]
    assert figures["flat_groups"] == 0.5


# ------------------------------------------------------------------------------------------------------------- learning


@both
@pytest.mark.parametrize("lora", [0, 4])
def test_the_reward_rises(kind, lora, online, update, instructions):
    plugin, config_class = PLUGINS[kind]
    config = config_class(lr=2e-2, batch_size=8, epochs=20, beta=0.005)
    made = online(lambda candidate, step: 5 * even(candidate, step), n=8, lora=lora)
    figures = update(plugin(config), instructions(*"abcdefgh"), made)
    scores = [sum(judgement.score for judgement in judged) / 64 for _, judged in made.rollouts.judged]
    assert 2 < scores[0] < 3
    assert min(scores[-4:]) > 3.5
    assert figures["reward"] == pytest.approx(sum(scores[-4:]) / 4)
    assert figures["reward_start"] == pytest.approx(sum(scores[:4]) / 4)
    assert figures["kl"] > 0.5
    assert (figures["answers"], figures["unscored"]) == (20 * 64, 0)


def test_the_model_that_is_saved_is_the_one_that_would_answer_next(online, update, instructions, load64):
    """With adapters: they start as nothing, are merged for every batch of answers, and in the checkpoint."""
    import torch

    made = online(even, lora=4)
    update(Grpo(GrpoConfig(lr=1e-2, batch_size=2, epochs=3)), instructions("a", "b"), made)
    first, *_, last = made.rollouts.weights
    start, saved = load64(made.start.path).float().state_dict(), load64(made.out).float().state_dict()
    assert all(torch.equal(first[name], start[name]) for name in start)
    assert first.keys() == last.keys() == saved.keys()
    assert not torch.equal(last["model.layers.0.mlp.up_proj.weight"], start["model.layers.0.mlp.up_proj.weight"])
    far = {n: (saved[n] - start[n]).norm().item() for n in saved}
    near = {n: (saved[n] - last[n]).norm().item() for n in saved}
    assert all(near[n] < far[n] for n in saved if far[n] > 0)


def test_every_prompt_is_answered_once_an_epoch_and_judged_in_one_call_a_batch(online, update, instructions):
    made = online(even, n=3)
    figures = update(Rloo(RlooConfig(batch_size=4, epochs=2, num_iterations=2)), instructions(*"abcdef"), made)
    batches = [[group.prompt.text for group in answered] for _, answered in made.rollouts.sampled]
    assert [sorted(set(batches[i] + batches[i + 1])) for i in (0, 2)] == [list("abcdef")] * 2
    assert all(len(set(batch)) == 4 for batch in batches)
    assert batches[:2] != batches[2:]
    assert [step for step, _ in made.rollouts.sampled] == [step for step, _ in made.rollouts.judged] == [0, 2, 4, 6]
    assert {len(judgements) for _, judgements in made.rollouts.judged} == {12}
    assert (figures["steps"], figures["rows"], figures["answers"]) == (8, 6, 48)


def test_the_reference_is_the_one_of_the_context(online, update, instructions, other_checkpoint, monkeypatch):
    from selfreward.plugins.optimizers import group_relative

    loaded = []
    load = group_relative.load_model
    monkeypatch.setattr(group_relative, "load_model", lambda model, *given: loaded.append(model.path) or load(model))
    kl = {}
    for lora in (0, 4):
        for name, reference in (("start", None), ("other", other_checkpoint)):
            made = online(even, lora=lora, reference=reference)
            kl[lora, name] = update(Grpo(GrpoConfig(batch_size=2)), instructions("a", "b"), made)["kl"]
            assert loaded == [made.start.path] + [made.reference.path] * (not (lora and reference is None))
            loaded.clear()
    assert kl[0, "start"] == pytest.approx(0, abs=1e-5)
    assert kl[4, "start"] == pytest.approx(0, abs=1e-5)
    assert kl[0, "other"] == pytest.approx(kl[4, "other"], rel=1e-4)
    assert kl[0, "other"] > 1
    figures = update(Grpo(GrpoConfig(batch_size=2, beta=0.0)), instructions("a", "b"), online(even))
    assert "kl" not in figures
    assert len(loaded) == 1


# --------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize(
    ("kind", "lora", "options"),
    [
        ("grpo", 0, {"gradient_accumulation": 2}),
        ("grpo", 4, {"num_iterations": 2, "gradient_accumulation": 2}),
        ("rloo", 0, {"num_iterations": 3}),
    ],
)
def test_taken_up_again_it_ends_with_the_same_bytes(kind, lora, options, online, update, instructions):
    plugin, config_class = PLUGINS[kind]
    config = config_class(lr=5e-3, batch_size=4, epochs=4, checkpoint_steps=4, **options)
    rows = instructions(*"abcdef")

    whole = online(even, lora=lora)
    expected = update(plugin(dataclasses.replace(config, checkpoint_steps=0)), rows, whole)
    broken = online(even, lora=lora)
    per_batch = options.get("num_iterations", 1)
    every = math.ceil(4 / per_batch) * per_batch

    def die(done, total, figures):
        if done == every + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(plugin(config), rows, dataclasses.replace(broken, progress=die))
    assert [path.name for path in broken.work.glob("checkpoint-*")] == [f"checkpoint-{every}"]
    again = online(even, lora=lora)
    again = dataclasses.replace(again, work=broken.work)
    figures = update(plugin(config), rows, again)
    assert again.rollouts.sampled[0][0] == every
    assert figures == expected
    assert (again.out / "model.safetensors").read_bytes() == (whole.out / "model.safetensors").read_bytes()


# ---------------------------------------------------------------------------------------------------------------- stops


@both
def test_scores_that_never_differ_stop_the_training(kind, online, update, instructions):
    plugin, config_class = PLUGINS[kind]
    made = online(lambda candidate, step: 3.5)
    with pytest.raises(StageError, match=r"first 3 batches.*of 24 answers 0 could.*from 3\.5 to 3\.5.*sampler\.n"):
        update(plugin(config_class(batch_size=2, epochs=9)), instructions("a", "b"), made)
    assert not list(made.out.iterdir())


def test_answers_that_are_never_scored_stop_the_training(online, update, instructions):
    made = online(lambda candidate, step: None)
    with pytest.raises(StageError, match=r"of 24 answers 24 could not be scored.*there is no mean score.*judge="):
        update(Grpo(GrpoConfig(batch_size=2, epochs=9)), instructions("a", "b"), made)


def test_answers_that_are_all_cut_off_and_left_out_stop_the_training(online, update, instructions):
    made = online(even, max_new_tokens=2)
    with pytest.raises(StageError, match="24 were cut off at the token limit"):
        update(Grpo(GrpoConfig(batch_size=2, epochs=9, mask_truncated=True)), instructions("a", "b"), made)


def test_a_training_shorter_than_the_patience_is_not_saved_when_it_learnt_nothing(online, update, instructions):
    with pytest.raises(StageError, match="first 1 batches"):
        update(Rloo(RlooConfig(batch_size=2)), instructions("a", "b"), online(lambda candidate, step: 1.0))


def test_two_hopeless_batches_are_no_reason_to_stop(online, update, instructions):
    made = online(lambda candidate, step: even(candidate, step) if step == 2 else 1.0)
    figures = update(Grpo(GrpoConfig(batch_size=2, epochs=6)), instructions("a", "b"), made)
    assert figures["flat_groups"] == pytest.approx(5 / 6, abs=0.1)


@both
def test_a_policy_that_runs_away_is_stopped(kind, online, update, instructions):
    plugin, config_class = PLUGINS[kind]
    config = config_class(lr=0.05, batch_size=2, epochs=40, max_kl=3.0)
    with pytest.raises(StageError, match=r"KL to the reference M1.*max_kl=3: .*went from.*beta.*lr \(now 0\.05\)"):
        update(plugin(config), instructions("a", "b"), online(even))


def test_a_loss_that_is_no_number_stops_the_training(online, update, instructions):
    with pytest.raises(StageError, match="diverged at step"):
        update(Grpo(GrpoConfig(lr=1e18, batch_size=2, epochs=5, max_kl=0.0)), instructions("a", "b"), online(even))


def test_prompts_that_do_not_fill_a_batch_or_leave_no_room(online, update, instructions):
    with pytest.raises(StageError, match=r"2 prompts do not fill.*batch_size=16.*prompt_generator\.n"):
        update(Grpo(GrpoConfig()), instructions("a", "b"), online(even))
    figures = update(Grpo(GrpoConfig(batch_size=2)), instructions("a", "b", "c" * 300), online(even))
    assert (figures["rows"], figures["too_long"]) == (2, 1)


def test_answers_that_are_not_as_they_were_sampled_are_refused(online, update, instructions):
    made = online(even)
    sample = made.rollouts.sample

    def without_tokens(*given):
        for group in (groups := sample(*given)):
            group.candidates[0].token_ids.clear()
        return groups

    made.rollouts.sample = without_tokens
    with pytest.raises(StageError, match="1 of them without tokens"):
        update(Grpo(GrpoConfig(batch_size=2)), instructions("a", "b"), made)


def test_dropout_of_adapters_is_refused_before_any_work():
    from types import SimpleNamespace

    plugin = Rloo(RlooConfig())
    for dropout, problems in ((0.1, 1), (0.0, 0)):
        config = ModelConfig(lora=LoraOptions(r=4, dropout=dropout))
        assert len(plugin.problems(SimpleNamespace(model_config=config))) == problems


def test_nothing_is_said(online, update, instructions, capfd, recwarn, monkeypatch):
    from transformers.utils import logging

    monkeypatch.setattr(logging, "_tqdm_active", False)  # as in a run
    seen = []
    made = dataclasses.replace(online(even), progress=lambda done, total, figures: seen.append((done, total, figures)))
    update(Grpo(GrpoConfig(batch_size=2, epochs=2)), instructions("a", "b"), made)
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []
    assert [(done, total, sorted(figures)) for done, total, figures in seen] == [
        (1, 2, ["kl", "reward"]),
        (2, 2, ["kl", "reward"]),
    ]
