"""PPO on a tiny model: against a float64 computation by hand, on tasks whose optimum is known, and killed half-way."""

from __future__ import annotations

import itertools
import json
import math
import string
from dataclasses import replace

import pytest

from selfreward import Instruction, Prompt, Scored, StageError
from selfreward.plugins.optimizers.ppo.optimizer import Ppo
from selfreward.plugins.optimizers.ppo.options import PpoConfig, ScoreScaling
from selfreward.plugins.optimizers.ppo.trainer import LOG
from selfreward.plugins.optimizers.training.options import Schedule

END = 1


@pytest.fixture(scope="session")
def asked():
    """Prompts as training rows."""
    return lambda *texts: [Instruction.of(Prompt.of(text, "ift")) for text in texts]


@pytest.fixture(scope="session")
def scored():
    """A scored answer, as sampled tokens."""

    def make(prompt: str, ids, score: float, name: str) -> Scored:
        row = Prompt.of(prompt, "ift")
        turns = [{"role": "assistant", "content": "-"}]
        return Scored(row.messages, turns, score, list(ids), row.prompt_id, name)

    return make


def log(context):
    return [json.loads(line) for line in (context.out / LOG).read_text().splitlines()]


# --------------------------------------------------------------------------------------------------- numerics, by hand


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_step_matches_float64_by_hand(
    temperature, scored, spell, spell_prompt, context, update, checkpoint, other_checkpoint, load64
):
    """One batch of stored answers of unlike length, two passes: rewards, GAE, whitening, both losses, AdamW."""
    import torch

    rows = [
        scored("ab", [*spell("hello"), END], 4.0, "a"),
        scored("ab", [*spell("no"), END], 1.0, "b"),
        scored("something-longer", [*spell("yes"), END], 2.0, "c"),
    ]
    config = PpoConfig(
        lr=1e-3, batch_size=4, ppo_epochs=2, beta=0.1, gamma=0.98, lam=0.9, value_clip=0.3, entropy_coef=0.01,
        value_coef=0.5, stop_kl=0.0, max_grad_norm=1e9, schedule=Schedule.constant,
    )  # fmt: skip
    made = replace(context(checkpoint, other_checkpoint), temperature=temperature)
    figures = update(Ppo(config), rows, made)

    model, reference = load64(checkpoint), load64(other_checkpoint)
    head = torch.nn.Linear(32, 1).double()
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    answers = [(spell_prompt("ab"), rows[0].token_ids), (spell_prompt("ab"), rows[1].token_ids)]
    answers += [(spell_prompt("something-longer"), rows[2].token_ids)]

    def read(lm, prompt, answer):
        out = lm(input_ids=torch.tensor([[*prompt, *answer]]), output_hidden_states=True)
        logs = (out.logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
        hidden = out.hidden_states[-1][0, len(prompt) - 1 : -1]
        return logs[torch.arange(len(answer)), torch.tensor(answer)], -(logs.exp() * logs).sum(-1), hidden

    scores = torch.tensor([row.score for row in rows], dtype=torch.float64)
    scaled = scores / scores.var(correction=0).sqrt()
    with torch.no_grad():
        old = [read(model, *each)[0] for each in answers]
        frozen = [read(reference, *each)[0] for each in answers]
        head.bias.fill_(scaled.mean())
        values = [head(read(model, *each)[2])[:, 0] for each in answers]
    advantages, returns = [], []
    for logs, ref, value, score in zip(old, frozen, values, scaled, strict=True):
        rewards = -0.1 * (logs - ref)
        rewards[-1] += score
        following = torch.cat([value[1:], torch.zeros(1)])
        residual, later, out = rewards + 0.98 * following - value, 0.0, []
        for delta in reversed(residual.tolist()):
            later = delta + 0.98 * 0.9 * later
            out.insert(0, later)
        advantages.append(torch.tensor(out, dtype=torch.float64))
        returns.append(advantages[-1] + value)
    flat = torch.cat(advantages)
    advantages = [(a - flat.mean()) / (flat.var(correction=0) + 1e-8).sqrt() for a in advantages]

    parameters = [*model.parameters(), *head.parameters()]
    adamw = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.0)
    tokens, losses = sum(map(len, old)), []
    for _ in range(2):
        loss = torch.zeros((), dtype=torch.float64)
        for each, before, value, advantage, wanted in zip(answers, old, values, advantages, returns, strict=True):
            logs, entropy, hidden = read(model, *each)
            now, ratio = head(hidden)[:, 0], (logs - before).exp()
            clipped = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            near = value + (now - value).clamp(-0.3, 0.3)
            squares = torch.maximum((now - wanted) ** 2, (near - wanted) ** 2)
            loss = loss + (-clipped + 0.5 * 0.5 * squares - 0.01 * entropy).sum() / tokens
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        losses.append(loss.item())
    [told] = log(made)
    assert told["loss"] == pytest.approx(sum(losses) / 2, rel=1e-4)
    assert losses[0] != pytest.approx(losses[1], rel=1e-2)
    kl = sum((o - f).sum().item() for o, f in zip(old, frozen, strict=True)) / 3
    assert told["kl"] == pytest.approx(kl, rel=1e-4)
    assert (figures["steps"], figures["answers"], told["reward"]) == (2, 3, pytest.approx(7 / 3))
    trained = load64(made.out).state_dict()
    for name, weight in model.state_dict().items():
        # float32 against float64, through two steps of Adam
        assert torch.allclose(trained[name], weight, atol=2e-5), name


def test_accumulated_passes_change_nothing(scored, spell, context, update):
    import torch
    from safetensors.torch import load_file

    rows = [scored(f"p{n}", [*spell("abcdefgh"[: n + 1]), END], float(n % 3), str(n)) for n in range(8)]
    weights = []
    for passes in (1, 4):
        made = context()
        update(Ppo(PpoConfig(lr=1e-3, batch_size=8, ppo_epochs=2, gradient_accumulation=passes)), rows, made)
        weights.append(load_file(made.out / "model.safetensors"))
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=2e-6) for name in weights[0])


def test_stored_answers_are_weighed_by_what_the_start_thought_of_them(scored, spell, context, update):
    """In a later batch the policy has moved; the ratio is still that to the start, which sampled them."""
    rows = [scored(f"p{n}", [*spell("ab" if n % 2 else "cd"), END], float(n % 2), str(n)) for n in range(8)]
    made = context()
    config = PpoConfig(lr=3e-3, rollouts=4, batch_size=4, ppo_epochs=1, epochs=4, stop_kl=0.0, beta=0.0)
    update(Ppo(config), rows, made)
    logs = log(made)
    assert len(logs) == 8
    assert logs[0]["update_kl"] == pytest.approx(0, abs=1e-6)
    assert logs[-1]["update_kl"] > 1e-3
    assert logs[-1]["kl"] != 0  # the penalty is for where the policy is now


# -------------------------------------------------------------------------------------------- tasks with known optimum


def test_a_bandit_finds_the_best_arm(asked, online, update):
    """One token of some 260; the reward is 1 for every eighth and 0 else. The optimum is 1."""
    made = online(lambda c, _: float(c.token_ids[0] % 8 == 0), n=64, max_new_tokens=1)
    config = PpoConfig(
        lr=2e-2, epochs=40, rollouts=2, batch_size=64, beta=0.0, missing_eos=None, stop_kl=0.0, entropy_coef=0.0,
    )  # fmt: skip
    figures = update(Ppo(config), asked("x", "y"), made)
    logs = log(made)
    assert logs[0]["reward"] < 0.3
    assert figures["reward"] > 0.95
    assert figures["reward_gain"] == pytest.approx(figures["reward"] - logs[0]["reward"])


def test_with_a_kl_penalty_the_bandit_ends_at_the_known_optimum(asked, online, update, load64, spell, spell_prompt):
    """max E[r] - beta KL(pi, ref) is pi ~ ref exp(r / beta): the share of the letter is known beforehand."""
    import torch

    made = online(lambda c, _: float("a" <= c.text <= "z"), n=64, max_new_tokens=1)
    beta = 0.4
    config = PpoConfig(
        lr=1e-2, epochs=60, rollouts=1, batch_size=64, beta=beta, missing_eos=None, stop_kl=0.0,
        score_scaling=ScoreScaling.none, gamma=1.0,
    )  # fmt: skip
    update(Ppo(config), asked("x"), made)

    def shares(folder):
        logits = load64(folder)(input_ids=torch.tensor([spell_prompt("x")])).logits[0, -1]
        return logits.softmax(-1)

    good = [spell(letter)[0] for letter in string.ascii_lowercase]
    before, after = shares(made.start.path), shares(made.out)
    mass = before[good].sum().item()
    wanted = mass * math.exp(1 / beta) / (mass * math.exp(1 / beta) + 1 - mass)
    assert after[good].sum().item() == pytest.approx(wanted, abs=0.12)
    assert wanted - mass > 0.1


def test_a_copy_task_is_learnt_token_by_token(asked, online, update):
    """The prompt is a letter; the optimum, 1, is to say it three times and stop. Near letters are worth something."""
    letters = "ax"

    def share(candidate, _):
        wanted, said = by_id[candidate.prompt_id] * 3, candidate.text
        near = [max(0.0, 1 - abs(ord(a) - ord(b)) / 32) for a, b in zip(said, wanted, strict=False)]
        return sum(near) / 3 - 0.2 * abs(len(said) - 3)

    rows = asked(*letters)
    by_id = {row.prompt_id: row.prompt[-1]["content"] for row in rows}
    made = online(share, n=48, max_new_tokens=4)
    config = PpoConfig(lr=4e-3, epochs=120, rollouts=2, batch_size=96, beta=0.0, missing_eos=None, stop_kl=0.2)
    figures = update(Ppo(config), rows, made)
    assert log(made)[0]["reward"] < 0.1
    assert figures["reward"] > 0.9


# ------------------------------------------------------------------------------------------------------------- options


def uneven(candidate, _):
    """A reward that differs between random answers."""
    return float(sum(candidate.token_ids) % 10)


SMALL = PpoConfig(
    lr=1e-3, rollouts=4, batch_size=8, epochs=3, ppo_epochs=2, missing_eos=None, checkpoint_steps=0, stop_kl=0.0
)


@pytest.mark.parametrize(
    "changes",
    [{}, {"critic": "start"}, {"kl_target": 1.0, "kl_horizon": 50.0}, {"score_scaling": ScoreScaling.start}],
    ids=["head", "critic", "adaptive", "start scaling"],
)
def test_it_repeats_to_the_byte(changes, asked, online, update):
    def made_and_figures():
        made = online(uneven)
        made = replace(made, critic=made.start if "critic" in changes else None)
        return made, update(Ppo(replace(SMALL, **changes)), asked(*"abcdefgh"), made)

    (first, figures), (again, same) = made_and_figures(), made_and_figures()
    assert figures == same
    assert (first.out / "model.safetensors").read_bytes() == (again.out / "model.safetensors").read_bytes()


def test_an_adaptive_beta_moves_towards_the_target(asked, online, update):
    made = online(uneven)
    update(Ppo(replace(SMALL, kl_target=1e-3, kl_horizon=100.0, lr=5e-3)), asked(*"abcdefgh"), made)
    betas = [entry["beta"] for entry in log(made)]
    assert betas[-1] > betas[2] > 0.05 * 0.9


def test_the_engine_samples_from_the_weights_of_the_moment(asked, online, update, checkpoint):
    import torch
    from safetensors.torch import load_file

    made = online(uneven)
    update(Ppo(SMALL), asked(*"abcdefgh"), made)
    start, given = load_file(checkpoint / "model.safetensors"), made.rollouts.weights
    name = "model.layers.0.mlp.up_proj.weight"
    assert len(given) == 6
    assert torch.equal(given[0][name], start[name])
    assert not any(torch.equal(a[name], b[name]) for a, b in itertools.pairwise(given))


def test_adapters_need_no_second_copy_and_are_merged(asked, online, update, checkpoint):
    import torch
    from safetensors.torch import load_file

    from selfreward.plugins.optimizers.ppo.models import load_reference

    made = online(uneven, lora=4)
    assert load_reference(made) is None
    figures = update(Ppo(replace(SMALL, lr=1e-2)), asked(*"abcdefgh"), made)
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, made.out))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name}
    assert log(made)[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert figures["kl"] != 0


def test_a_reward_models_head_is_where_a_critic_begins(asked, online, update, checkpoint, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification

    from selfreward.plugins.optimizers.ppo.models import load_actor_critic

    torch.manual_seed(0)
    reward = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1, pad_token_id=0)
    reward.save_pretrained(tmp_path / "reward")
    made = online(uneven)
    made = replace(made, critic=replace(made.start, path=str(tmp_path / "reward"), key="reward"))
    model = load_actor_critic(made, SMALL)
    assert torch.equal(model.value_head.weight, reward.score.weight)
    figures = update(Ppo(SMALL), asked(*"abcdefgh"), made)
    assert math.isfinite(figures["explained_variance"])


def test_ptx_goes_on_imitating_the_demonstrations(
    asked, online, update, demonstration, load64, token_log_probs, spell, spell_prompt
):
    from selfreward import Demonstration, TrainingSet

    rows = [demonstration("hello", "good-day"), demonstration("bye", "see-you")]
    likely = []
    for weight in (0.0, 5.0):
        made = replace(online(uneven), replay=TrainingSet(Demonstration, 2, lambda: iter(rows)))
        update(Ppo(replace(SMALL, replay=weight, epochs=6)), asked(*"abcdefgh"), made)
        likely.append(token_log_probs(load64(made.out), spell_prompt("hello"), [*spell("good-day"), END]).sum().item())
    assert likely[1] > likely[0] + 5


def test_an_answer_without_an_end_gets_its_own_score_and_is_not_judged(asked, online, update):
    made = online(uneven, max_new_tokens=3)
    sample = made.rollouts.sample

    def every_other_one_ends(*given):
        """The tiny model never ends a turn by itself."""
        groups = sample(*given)
        for group in groups:
            group.candidates[::2] = [replace(c, finish_reason="stop") for c in group.candidates[::2]]
        return groups

    made.rollouts.sample = every_other_one_ends
    figures = update(Ppo(replace(SMALL, missing_eos=-1.0, epochs=1)), asked(*"abcdefgh"), made)
    answers = [c for _, groups in made.rollouts.sampled for group in groups for c in group.candidates]
    cut = sum(c.finish_reason == "length" for c in answers)
    judged = sum(len(judgements) for _, judgements in made.rollouts.judged)
    assert 0 < cut < len(answers)
    assert (figures["cut_off"], figures["votes"], judged) == (cut, len(answers) - cut, len(answers) - cut)


def test_an_answer_nobody_could_score_is_not_learnt_from(asked, online, update):
    made = online(lambda c, step: None if len(c.text) % 2 else uneven(c, step))
    figures = update(Ppo(replace(SMALL, epochs=1)), asked(*"abcdefgh"), made)
    unread = sum(j.score is None for _, judgements in made.rollouts.judged for j in judgements)
    assert figures["unscored"] == figures["unreadable"] == unread > 0
    assert sum(entry["answers"] for entry in log(made)) == figures["answers"] - unread


def test_a_batch_ends_where_the_policy_has_moved_too_far(asked, online, update):
    made = online(uneven)
    figures = update(Ppo(replace(SMALL, lr=5e-2, stop_kl=1e-3, ppo_epochs=4)), asked(*"abcdefgh"), made)
    assert figures["stopped_early"] > 0
    assert figures["steps"] < 6 * 4 * 2


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("score", "changes", "message"),
    [
        (lambda c, step: 3.0, {}, r"all 16 answers of the first batch have the same score, 3: .*judge="),
        (lambda c, step: None, {}, r"not one of 16 answers has a score \(batch 1 of 6\): 16 of 16 verdicts unreadable"),
        (lambda c, step: math.nan, {}, r"a score is no number \(batch 1 of 6\); nothing was learnt before"),
        (uneven, {"max_kl": 1e-4, "lr": 1e-2}, r"KL to the reference M1 has grown to .* nats .*so far the mean score"),
        (uneven, {"lr": 1e30, "max_grad_norm": 1e30, "stop_kl": 0.0}, r"(diverged at step|KL to the reference)"),
    ],
    ids=["equal", "unread", "nan", "kl", "diverged"],
)
def test_it_stops_with_the_reason_and_saves_nothing(score, changes, message, asked, online, update):
    made = online(score)
    with pytest.raises(StageError, match=message):
        update(Ppo(replace(SMALL, **changes)), asked(*"abcdefgh"), made)
    assert not any(made.out.iterdir())


def test_equal_scores_later_on_are_passed_over(asked, online, update):
    made = online(lambda c, step: 5.0 if step else uneven(c, step))
    figures = update(Ppo(SMALL), asked(*"abcdefgh"), made)
    assert figures["flat_batches"] == 5
    assert figures["steps"] == 4


def test_all_answers_cut_off_is_told_as_such(asked, online, update):
    with pytest.raises(StageError, match=r"all 16 answers were cut off .* raise sampler.max_new_tokens"):
        update(Ppo(replace(SMALL, missing_eos=-1.0)), asked(*"abcdefgh"), online(uneven, max_new_tokens=2))


def test_a_sampler_that_gives_no_tokens_is_told(asked, online, update):
    made = online(uneven)
    sample = made.rollouts.sample

    def without_tokens(*given):
        groups = sample(*given)
        for group in groups:
            group.candidates[:] = [replace(c, token_ids=[]) for c in group.candidates]
        return groups

    made.rollouts.sample = without_tokens
    with pytest.raises(StageError, match="without its token_ids"):
        update(Ppo(SMALL), asked(*"abcdefgh"), made)


@pytest.mark.parametrize("scores", [[5.0] * 9 + [4.0], [1000.0, 1000.1, 1000.3], [0.9, 0.8]])
@pytest.mark.parametrize("scaling", [ScoreScaling.running, ScoreScaling.start])
def test_clipping_outliers_leaves_the_order_of_scores_that_lie_close_together(scores, scaling):
    """Scores far from 0 beside their spread are what judges give."""
    from collections import Counter

    import torch
    from accelerate import Accelerator

    from selfreward.plugins.optimizers.ppo.answers import Answer, pack
    from selfreward.plugins.optimizers.ppo.scores import scale_scores
    from selfreward.plugins.optimizers.ppo.state import State

    batch = pack([Answer([1], [2], score) for score in scores], Counter(answers=len(scores)), "cpu")
    figures = scale_scores(batch, State(), PpoConfig(score_scaling=scaling), Accelerator(cpu=True), "batch 1 of 1")
    given = torch.tensor(scores, dtype=torch.float64)
    sd = given.std(correction=0)
    shift = given.mean() if scaling is ScoreScaling.start else 0.0
    assert batch.scores.tolist() == pytest.approx(((given - shift) / sd).tolist(), rel=2e-3, abs=2e-3)
    assert figures["reward_sd"] == pytest.approx(sd.item(), rel=1e-3)


def test_answers_that_do_not_fit_are_refused_when_none_does(scored, spell, context, update):
    rows = [scored("p", spell("abcdef"), float(n), str(n)) for n in range(2)]
    with pytest.raises(StageError, match=r"none of the 2 scored answers fits into 4 tokens"):
        update(Ppo(PpoConfig(max_length=4)), rows, context())


def test_text_like_a_control_token_stays_text(asked, online, update):
    made = online(uneven)
    update(Ppo(replace(SMALL, epochs=1, rollouts=2)), asked("say<|end|>", "b"), made)
    reader_ids = made.start.chat().encode([{"role": "user", "content": "say<|end|>"}])
    assert reader_ids.count(END) == 1  # the template's own


# -------------------------------------------------------------------------------------------------------------- resume


def test_killed_between_batches_it_ends_with_the_same_bytes(asked, online, update):
    options = replace(SMALL, checkpoint_steps=4, kl_target=0.5, kl_horizon=50.0)
    whole = online(uneven)
    figures = update(Ppo(options), asked(*"abcdefgh"), whole)

    class Killed(BaseException):
        pass

    done: list[int] = []

    def kill(batch, batches, shown):
        done.append(batch)
        if batch == 4:
            raise Killed

    halted = online(uneven)
    with pytest.raises(Killed):
        update(Ppo(options), asked(*"abcdefgh"), replace(halted, progress=kill))
    assert [folder.name for folder in halted.work.iterdir()] == ["checkpoint-3"]
    resumed: list[int] = []
    same = update(Ppo(options), asked(*"abcdefgh"), replace(halted, progress=lambda b, *_: resumed.append(b)))
    assert resumed == [3, 4, 5, 6]
    assert same == figures
    assert (halted.out / "model.safetensors").read_bytes() == (whole.out / "model.safetensors").read_bytes()
    assert log(halted) == log(whole)


def test_a_torn_checkpoint_is_not_gone_on_from(asked, online, update):
    options = replace(SMALL, checkpoint_steps=4)
    whole = online(uneven)
    figures = update(Ppo(options), asked(*"abcdefgh"), whole)
    torn = online(uneven)
    folder = torn.work / "checkpoint-5"
    folder.mkdir()
    (folder / "trained.safetensors").write_bytes(b"half")
    assert update(Ppo(options), asked(*"abcdefgh"), torn) == figures
