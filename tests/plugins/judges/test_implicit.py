"""The implicit reward: the arithmetic by hand, what is weighed, and two real models against float64."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import selfreward.plugins.micro
from selfreward import AnsweredPrompt, Candidate, Engine, Likelihood, ModelConfig, ModelRef, Prompt, StageError
from selfreward.core.contracts.options import cross_problems
from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine
from selfreward.plugins.judges.implicit import Implicit, ImplicitConfig
from selfreward.testing import ScriptedContext, check_judge

M0 = Path(selfreward.plugins.micro.__file__).with_name("m0")
PROMPT = Prompt.of("Describe a fox.", source="ift")


def answer(text, k=0, ids=(), reason="stop"):
    return Candidate.of(PROMPT, text, k, origin="M1", model="M1", token_ids=ids, finish_reason=reason)


def scores(context, *candidates, **options):
    judge = Implicit(ImplicitConfig(**options))
    return [judgement.score for judgement in judge.score([AnsweredPrompt(PROMPT, list(candidates))], context)]


# ------------------------------------------------------------------------------------------------------ the arithmetic


@pytest.mark.parametrize("normalised", [False, True])
def test_it_keeps_the_contract_of_judges(normalised):
    made = check_judge(Implicit(ImplicitConfig(length_normalised=normalised, length_penalty=0.01)))
    assert {(judgement.judge, judgement.rubric, len(judgement.votes)) for judgement in made} == {("implicit", "-", 1)}
    assert len({judgement.score for judgement in made}) > 3


def test_the_score_is_the_scaled_log_ratio_less_the_length_penalty():
    context = ScriptedContext(likely=lambda reply: -0.5, likely_elsewhere=lambda reply: -0.75)
    three = answer("", ids=[7, 8, 0])  # 3 tokens, each 0.25 nats likelier than to the reference
    assert scores(context, three) == [pytest.approx(0.1 * 0.75)]
    assert scores(context, three, beta=2.0) == [pytest.approx(1.5)]
    assert scores(context, three, beta=2.0, length_penalty=0.1) == [pytest.approx(1.5 - 0.3)]
    assert scores(context, three, beta=2.0, length_normalised=True) == [pytest.approx(0.5)]
    both = {"length_normalised": True, "length_penalty": 0.1}
    assert scores(context, three, beta=2.0, **both) == [pytest.approx(0.5 - 0.3)]


def test_answers_are_weighed_as_they_were_sampled_and_by_both_models():
    context = ScriptedContext()
    asked = [
        answer("ab", 0, [97, 98, 0]),
        answer("ab", 1, [97, 98], "length"),
        answer("ab", 2),
        answer("ab", 3, reason="length"),  # of a server that tells no tokens
        answer("", 4),
        answer("", 5, reason="length"),  # the prompt left no room: nothing was said
    ]
    found = scores(context, *asked)
    mine, theirs = context.weighed[:6], context.weighed[6:]
    assert mine == theirs
    assert [request.replies for request in mine] == [[[97, 98, 0]], [[97, 98]], ["ab"], ["ab"], [""], [""]]
    assert [request.ended for request in mine] == [True, False, True, False, True, False]
    assert all(request.messages == PROMPT.messages for request in mine)
    assert found[5] is None
    assert all(isinstance(score, float) for score in found[:5])


@pytest.mark.parametrize("who", ["likely", "likely_elsewhere"])
def test_what_a_model_would_never_say_has_no_score(who):
    def never(reply):
        return -math.inf if reply == "x" else -1.25

    never_says = dataclasses.replace(ScriptedContext(), **{who: never})
    x, y = scores(never_says, answer("x"), answer("y", 1))
    assert x is None
    assert math.isfinite(y)


def test_what_does_not_fit_into_one_of_the_contexts_has_no_score():
    class Short(ScriptedContext):
        def likelihoods(self, requests):
            fit = super().likelihoods(requests)
            return [[Likelihood([], [])] if self.model == "base" and len(f[0].token_ids) > 3 else f for f in fit]

    assert [s is None for s in scores(Short(), answer("long", 0), answer("ab", 1))] == [True, False]


# ------------------------------------------------------------------------------------------- two models, and not one


def test_one_model_twice_is_refused_before_any_work():
    context = ScriptedContext(model="M1")
    with pytest.raises(StageError, match=r"judge\.model and judge\.reference are both M1, so every score would be 0"):
        scores(context, answer("a"), reference="M1")
    assert context.weighed == []
    [said] = cross_problems(ImplicitConfig(model="M1", reference="M1"), "judge")
    assert "both M1" in said
    assert "base, sft, M1" in said
    assert not [*cross_problems(ImplicitConfig(), "judge")]


def test_equal_weights_under_two_names_are_refused():
    same = ScriptedContext(model="M0", likely=len, likely_elsewhere=len)
    with pytest.raises(StageError, match=r"M0 and base have the same weights, so every score would be 0.*is trained"):
        scores(same, answer("a"))


def test_a_reference_with_other_tokens_is_refused():
    class Foreign(ScriptedContext):
        def likelihoods(self, requests):
            found = super().likelihoods(requests)
            more = 1 if self.model == "base" else 0
            return [[Likelihood([t + more for t in f.token_ids], f.logprobs) for f in group] for group in found]

    with pytest.raises(StageError, match=r"M1 and base read the same answer in different tokens.*judge\.reference"):
        scores(Foreign(), answer("a"))


# -------------------------------------------------------------------------------------------------------- real models


@dataclass
class TwoModels(ScriptedContext):
    """The context of a policy and the base it was made from, on one engine that moves between them."""

    engine: Engine | None = None
    refs: dict[str, ModelRef] = field(default_factory=dict)

    def likelihoods(self, requests):
        self.engine.open(self.refs[self.model])
        return self.engine.likelihoods(requests)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """M0 a step away from itself."""
    folder = tmp_path_factory.mktemp("policy")
    model = AutoModelForCausalLM.from_pretrained(M0, dtype=torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    assert load_file(folder / "model.safetensors")
    for file in M0.glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_bytes((M0 / "chat_template.jinja").read_bytes())
    return folder


def test_scores_against_two_real_models_in_float64(policy):
    folders = {"M1": policy, "base": M0}
    refs = {name: ModelRef(name, str(folder), name, ModelConfig()) for name, folder in folders.items()}
    context = TwoModels(engine=TransformersEngine(TransformersConfig()), refs=refs)
    chat = refs["M1"].chat()
    asked = [answer("It is red.", 0), answer("fox yes", 1, chat.encode_reply("fox yes")[:-1], "length"), answer("", 2)]
    found = scores(context, *asked, beta=0.3, length_penalty=0.02)

    prompt = chat.encode(PROMPT.messages)
    for candidate, score in zip(asked, found, strict=True):
        ids = candidate.token_ids or chat.encode_reply(candidate.text)
        logprobs = []
        for folder in folders.values():
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
            with torch.no_grad():
                logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            logprobs.append(float(logits.log_softmax(-1)[torch.arange(len(ids)), ids].sum()))
        assert score == pytest.approx(0.3 * (logprobs[0] - logprobs[1]) - 0.02 * len(ids), abs=1e-4)
    assert len(set(found)) == 3
    same = TwoModels(engine=context.engine, refs={"M1": refs["base"], "base": refs["base"]})
    with pytest.raises(StageError, match="M1 and base have the same weights"):
        scores(same, *asked)
