"""The reward judge: what it asks, and a real sequence classifier on the real engine against the head by hand."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

import selfreward.plugins.micro
from selfreward import AnsweredPrompt, Candidate, Continuations, Engine, ModelConfig, ModelRef, Prompt
from selfreward.plugins.engines.transformers.engine import TransformersConfig, TransformersEngine
from selfreward.plugins.judges.reward_model import RewardModel, RewardModelConfig
from selfreward.testing import ScriptedContext, answered_prompts, check_judge

M0 = Path(selfreward.plugins.micro.__file__).with_name("m0")
JUDGE = RewardModel(RewardModelConfig())


@dataclass
class EngineContext(ScriptedContext):
    """A context in which a reward model runs instead of a script."""

    engine: Engine | None = None

    def rewards(self, requests):
        self.rewarded += requests
        return self.engine.rewards(requests)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the micro world's shape and tokenizer, with random weights."""
    folder = tmp_path_factory.mktemp("reward")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(M0, num_labels=1, initializer_range=0.2)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model.config.selfreward_reward_shift = 0.5
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(M0).save_pretrained(folder)
    return folder


def test_it_keeps_the_contract_of_judges():
    made = check_judge(JUDGE)
    assert {judgement.rubric for judgement in made} == {"-"}
    assert {len(judgement.votes) for judgement in made} == {1}


def test_every_answer_is_asked_about_once_as_a_text_that_has_ended():
    context, answered = ScriptedContext(model="reward"), answered_prompts()
    made = list(JUDGE.score(answered, context))
    assert context.rewarded == [
        Continuations(group.prompt.messages, [candidate.text for candidate in group.candidates]) for group in answered
    ]
    assert all(request.ended and not request.reply_prefix for request in context.rewarded)
    cut = [c for group in answered for c in group.candidates if c.finish_reason == "length"]
    assert cut  # one that was cut off is scored like one that ends there
    texts = [candidate.text for group in answered for candidate in group.candidates]
    assert [judgement.score for judgement in made] == [float(len(text)) for text in texts]
    assert {(j.judge, j.model, j.rationales[0], j.seed) for j in made} == {("reward_model", "reward", "", 0)}


def test_what_is_too_long_has_no_score():
    context = ScriptedContext(worth=lambda reply: None if len(reply) > 5 else 1.5)
    made = JUDGE.score(answered_prompts(), context)
    assert {(judgement.score, *judgement.votes) for judgement in made} == {(None, None), (1.5, 1.5)}


def test_scores_are_the_heads_numbers_of_the_real_model(folder):
    engine = TransformersEngine(TransformersConfig())
    ref = ModelRef("reward", str(folder), "rm", ModelConfig())
    engine.open(ref)
    prompt = Prompt.of("Describe a fox.", source="ift")
    texts = ["It is red.", "", "It is red.", "The fox is small and quick, and lives by the river."]
    candidates = [Candidate.of(prompt, text, k, origin="M1", model="M1") for k, text in enumerate(texts)]
    candidates[3] = dataclasses.replace(candidates[3], token_ids=[5, 6], finish_reason="length")
    answered = [AnsweredPrompt(prompt, candidates), AnsweredPrompt(Prompt.of("Hm?", source="ift"), [])]
    made = list(JUDGE.score(answered, EngineContext(model="reward", engine=engine)))

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    chat, expected = ref.chat(), []
    for text in texts:
        ids = [*chat.encode(prompt.messages), *chat.encode_reply(text)]
        with torch.no_grad():
            hidden = model.base_model(torch.tensor([ids])).last_hidden_state[0, -1]
            expected.append(float(hidden @ model.score.weight[0]) - 0.5)
    assert [judgement.score for judgement in made] == pytest.approx(expected, abs=1e-5)
    assert made[0].score == made[2].score
    assert len({judgement.score for judgement in made}) == 3


def test_a_folder_is_looked_at_before_any_work(folder, tmp_path):
    def problems(path):
        return RewardModel(RewardModelConfig(model=str(path))).problems(ScriptedContext())

    def copied(name, **config):
        target = tmp_path / name
        target.mkdir()
        for file in folder.glob("*.json"):
            (target / file.name).write_bytes(file.read_bytes())
        known = json.loads((folder / "config.json").read_text())
        (target / "config.json").write_text(json.dumps(known | config))
        return target

    assert JUDGE.problems(ScriptedContext()) == []  # a role: the core knows which there are
    assert problems(folder) == []
    [said] = problems(M0)
    assert "it holds LlamaForCausalLM and no ...ForSequenceClassification" in said
    assert "judge=llm_cot" in said
    known = len(AutoTokenizer.from_pretrained(folder))
    assert problems(copied("as large", vocab_size=known)) == []
    [said] = problems(copied("small", vocab_size=known - 1))
    assert f"tokenizer has {known} tokens and the model's vocab_size is {known - 1}" in said
    assert f"resize_token_embeddings({known})" in said
    [said] = problems(tmp_path)
    assert "its config.json cannot be read" in said
