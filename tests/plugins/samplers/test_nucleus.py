"""Nucleus sampling: what the model is asked, and that every answer can be traced."""

from selfreward import Completion, Sampling
from selfreward.plugins.samplers.nucleus import Nucleus, NucleusConfig
from selfreward.testing import ScriptedContext, check_sampler, prompts


def test_it_keeps_the_contract_of_samplers():
    made = check_sampler(Nucleus(NucleusConfig()))
    assert len(made) == 4 * len(prompts())


def test_the_model_is_asked_once_per_prompt_with_the_options_and_a_seed_of_its_own():
    ran = ScriptedContext()
    list(Nucleus(NucleusConfig(n=3, temperature=1.0, top_p=0.5, top_k=7, max_new_tokens=9)).sample(prompts(), ran))
    assert [request.messages for request in ran.requests] == [prompt.messages for prompt in prompts()]
    assert {request.n for request in ran.requests} == {3}
    assert {request.sampling for request in ran.requests} == {Sampling(1.0, 0.5, 7, 9)}
    assert len({request.seed for request in ran.requests}) == len(prompts())


def test_a_candidate_holds_what_the_engine_said():
    def reply(request, k):
        return Completion(f"answer {k}", [5, 6, k], "length" if k else "stop", request.seed + k)

    ran = ScriptedContext(reply=reply, model="M2")
    first, second = Nucleus(NucleusConfig(n=2)).sample(prompts()[:1], ran)
    seed = ran.requests[0].seed
    assert (first.text, first.token_ids, first.finish_reason, first.seed) == ("answer 0", [5, 6, 0], "stop", seed)
    assert (second.text, second.token_ids, second.finish_reason, second.seed) == (
        "answer 1",
        [5, 6, 1],
        "length",
        seed + 1,
    )
    assert (first.origin, first.model, first.rank) == ("M2", "M2", None)


def test_greedy_makes_sense_for_one_answer_only():
    assert NucleusConfig(n=1, temperature=0).problems() == []
    assert NucleusConfig(n=4, temperature=0.7).problems() == []
    [problem] = NucleusConfig(n=4, temperature=0).problems()
    assert "n=4" in problem
    assert "n=1" in problem
