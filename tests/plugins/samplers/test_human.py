"""Human answers as candidates."""

from selfreward import Prompt
from selfreward.plugins.samplers.human import Human, HumanConfig
from selfreward.testing import Rows, ScriptedContext, answered_prompts, check_sampler, prompts


def test_it_keeps_the_contract_of_samplers_and_gives_the_answers_as_they_are():
    made = check_sampler(Human(HumanConfig()))
    assert made == [candidate for group in answered_prompts() for candidate in group.candidates]


def test_the_split_is_an_option_and_the_order_is_that_of_the_prompts():
    groups = answered_prompts()
    data = Rows(ift=[], eft=groups)
    wanted = [groups[2].prompt, groups[0].prompt]
    made = list(Human(HumanConfig(split="eft")).sample(wanted, ScriptedContext(data=data)))
    assert made == groups[2].candidates + groups[0].candidates
    assert list(Human(HumanConfig()).sample(wanted, ScriptedContext(data=data))) == []


def test_prompts_without_an_answer_are_counted():
    ran = ScriptedContext()
    list(Human(HumanConfig()).sample([*prompts(), Prompt.of("Nobody answered this.", source="M1")], ran))
    assert ran.counters == {"unanswered": 3}  # two of the examples have no candidates, and the new one
