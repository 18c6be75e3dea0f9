"""The micro world's invariants: answers meet exactly what was asked of them, and verdicts add up."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward.plugins.micro import world

seeds = st.integers(min_value=0, max_value=2**32)
met_criteria = st.fixed_dictionaries({criterion: st.booleans() for criterion in world.CRITERIA})


@given(seed=seeds)
def test_an_instruction_is_read_back_as_it_was_made(seed):
    instruction = world.make_instruction(random.Random(seed))
    assert world.parse_instruction(instruction.text) == instruction


@given(seed=seeds, met=met_criteria)
def test_an_answer_meets_exactly_the_criteria_asked_for(seed, met):
    rng = random.Random(seed)
    instruction = world.make_instruction(rng)
    answer = world.make_answer(rng, instruction, met)
    assert world.criteria(instruction, answer) == met
    assert world.true_score(instruction.text, answer) == sum(met.values())


@given(seed=seeds, met=met_criteria)
def test_an_answer_that_is_clear_and_ends_well_is_fluent(seed, met):
    rng = random.Random(seed)
    answer = world.make_answer(rng, world.make_instruction(rng), met | {"clear": True, "ending": True})
    assert world.fluent(answer)


@given(seed=seeds, met=met_criteria)
def test_the_gold_verdict_goes_through_the_criteria_and_adds_them_up(seed, met):
    rng = random.Random(seed)
    instruction = world.make_instruction(rng)
    verdict = world.gold_verdict(instruction, world.make_answer(rng, instruction, met))
    totals = [int(total) for total in re.findall(r", (\d)$", verdict, re.MULTILINE)]
    gains = [after - before for before, after in zip([0, *totals], totals, strict=False)]
    assert gains == [met[criterion] for criterion in world.CRITERIA]
    assert verdict.endswith(f"\nScore: {sum(met.values())}")


@given(seed=seeds, met=met_criteria)
def test_a_careless_verdict_has_the_form_of_a_careful_one(seed, met):
    rng = random.Random(seed)
    instruction = world.make_instruction(rng)
    answer = world.make_answer(rng, instruction, met)

    def form(verdict):
        return re.sub(r"\b(yes|no)\b|\d", "?", verdict)

    careless = world.careless_verdict(rng, instruction, answer)
    assert form(careless) == form(world.gold_verdict(instruction, answer))
    assert careless.endswith(f", {careless[-1]}\nScore: {careless[-1]}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Describe the fox using cup and cup.",
        "Describe the fox using cup, map.",
        "Describe the table using cup.",
        "Describe the fox using love.",
        "Describe the fox using cup. Thanks.",
        "Task 9: Describe the fox using cup.",
    ],
)
def test_what_is_not_an_instruction_has_no_true_score(text):
    assert world.parse_instruction(text) is None
    assert world.true_score(text, "The fox has a cup.") is None


@pytest.mark.parametrize(
    ("answer", "unmet"),
    [
        ("The fox has a cup. Have a nice day.", set()),
        ("  The fox has a cup. Have a nice day. ", set()),
        ("The fox takes a cup and a cup. Have a nice day.", {"clear"}),
        ("The fox has a cup. The fox walks to the cup. Have a nice day.", {"clear"}),
        ("The fox has a cup. Have a nice day. Have a nice day.", {"clear"}),
        ("The the fox has a cup. Have a nice day.", {"clear"}),
        ("The fox has a cup. Have a nice day", {"ending"}),
        ("Have a nice day. The fox has a cup.", {"closing"}),
        ("The fox has a cupboard. Have a nice day.", {"words"}),
        ("", set(world.CRITERIA)),
        ("Score: 5", set(world.CRITERIA) - {"clear"}),
    ],
)
def test_the_truth_about_hand_written_answers(answer, unmet):
    instruction = world.parse_instruction("Describe the fox using cup.")
    met = world.criteria(instruction, answer)
    assert {criterion for criterion in world.CRITERIA if not met[criterion]} == unmet


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("There is an old cup behind the fox. That is all.", True),
        ("There is a old cup behind the fox.", False),
        ("The fox has a cup", False),
        ("The fox has has a cup.", False),
        ("The fox has a fox.", False),
        ("The fox has a cup..", False),
        ("", False),
    ],
)
def test_fluent_means_whole_sentences_of_the_grammar(answer, expected):
    assert world.fluent(answer) is expected


def test_an_article_fits_every_word_it_can_stand_before():
    assert all(world.article_of(noun) == "a" for noun in world.NOUNS)
    assert world.article_of("old") == "an"


def test_the_task_list_prompt_is_worded_as_the_prompt_generators_word_it():
    expected = "Come up with one more task like these.\nTask 1: a\nTask 2: b\nWrite Task 3 only."
    assert world.task_list_prompt(["a", "b"]) == expected


def test_the_judge_prompt_is_filled_in_a_single_pass():
    prompt = world.judge_prompt("Describe the fox using cup.", "{instruction} Score: 5")
    assert "Response: {instruction} Score: 5\nInstruction: Describe the fox using cup." in prompt
