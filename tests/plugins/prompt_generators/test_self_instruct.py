"""Self-Instruct: what the model is shown, and what is taken from its reply."""

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import AnsweredPrompt, Completion, Prompt, UserError
from selfreward.plugins.prompt_generators.self_instruct import SelfInstruct, SelfInstructConfig, ask, parse_reply
from selfreward.testing import Rows, ScriptedContext, check_prompt_generator, prompts

SEED_TASKS = Path(__file__).parents[4] / "shared" / "data" / "self_instruct" / "seed_tasks.jsonl"

SEEDS = [Prompt.of(f"Seed number {k}\nwith a second line.", source="ift") for k in range(20)]
EARLIER = [Prompt.of(f"Written number {k}.", source="M1") for k in range(9)]


def context(reply="Task 9: Sing a song.", seeds=SEEDS, **fields):
    said = reply if callable(reply) else lambda request, k: reply
    return ScriptedContext(reply=said, data=Rows(ift=[AnsweredPrompt(seed, []) for seed in seeds]), **fields)


def shown(request):
    """The examples in a request, in order."""
    return re.findall(r"^Task \d+: (.*)$", request.messages[0]["content"], re.MULTILINE)


def test_it_keeps_the_contract_of_prompt_generators():
    made = check_prompt_generator(SelfInstruct(SelfInstructConfig()))
    assert len(made) == 6
    assert all(prompt.source == "M1" for prompt in made)


def test_the_model_is_asked_in_the_words_m0_has_met():
    assert ask(["Describe\n a fox. ", "Name a river."]) == [
        {
            "role": "user",
            "content": "Come up with one more task like these.\n"
            "Task 1: Describe a fox.\nTask 2: Name a river.\nWrite Task 3 only.",
        }
    ]


def test_the_micro_world_asks_in_the_same_words():
    from selfreward.plugins.micro.world import task_list_prompt

    tasks = ["Describe the fox using cup.", "Tell me about the cat."]
    assert ask(tasks)[0]["content"] == task_list_prompt(tasks)


@pytest.mark.parametrize(("earlier", "written"), [([], 0), (EARLIER[:1], 1), (EARLIER[:2], 2), (EARLIER, 2)])
def test_examples_are_six_seeds_and_two_earlier_prompts_and_seeds_stand_in_for_missing_ones(earlier, written):
    ran = context()
    list(SelfInstruct(SelfInstructConfig()).propose(range(30), earlier, ran))
    assert len(ran.requests) == 30
    for request in ran.requests:
        examples = shown(request)
        assert len(set(examples)) == 8
        assert sum(example.startswith("Written") for example in examples) == written
        assert (
            sum(re.fullmatch(r"Seed number \d+ with a second line\.", e) is not None for e in examples) == 8 - written
        )


def test_parents_are_the_prompts_that_were_shown_in_that_order():
    ran = context()
    made = SelfInstruct(SelfInstructConfig(shots_seed=3, shots_generated=1)).propose(range(5), EARLIER, ran)
    known = {prompt.prompt_id: " ".join(prompt.text.split()) for prompt in [*SEEDS, *EARLIER]}
    for prompt, request in zip(made, ran.requests, strict=True):
        assert [known[parent] for parent in prompt.parents] == shown(request)
        assert prompt.text == "Sing a song."


def test_rows_and_run_seeds_draw_different_examples_and_different_tokens():
    generator, first, second = SelfInstruct(SelfInstructConfig()), context(), context(run_seed=1)
    generator.propose(range(20), EARLIER, first)
    generator.propose(range(20), EARLIER, second)
    asked = [(request.messages[0]["content"], request.seed) for request in first.requests + second.requests]
    assert len({text for text, _ in asked}) == len({seed for _, seed in asked}) == 40


def test_generated_examples_do_not_always_stand_last():
    ran = context()
    SelfInstruct(SelfInstructConfig()).propose(range(40), EARLIER, ran)
    places = {k for request in ran.requests for k, e in enumerate(shown(request)) if e.startswith("Written")}
    assert places == set(range(8))


def test_with_few_seeds_it_shows_what_there_is_and_with_none_it_refuses():
    ran = context(seeds=SEEDS[:3])
    SelfInstruct(SelfInstructConfig()).propose(range(1), [], ran)
    assert len(shown(ran.requests[0])) == 3
    with pytest.raises(UserError, match="split 'ift'"):
        SelfInstruct(SelfInstructConfig()).propose(range(1), [], context(seeds=[]))


def test_unusable_replies_are_none_and_counted_apart():
    replies = ["Task 9:", "Sing a song.", Completion("Sing a long", [1, 2], "length", 0), "???"]
    ran = context(lambda request, k: replies[len(ran.requests) - 4 + asked[request.seed]])
    asked = {ran.seed("write", row): row for row in range(4)}
    made = SelfInstruct(SelfInstructConfig()).propose(range(4), [], ran)
    assert [prompt and prompt.text for prompt in made] == [None, "Sing a song.", None, None]
    assert ran.counters == {"empty": 2, "cut_off": 1}


@pytest.mark.parametrize(
    ("reply", "task"),
    [
        ("Describe the fox using cup.", "Describe the fox using cup."),
        ("Task 9: Write a poem.", "Write a poem."),
        ("**Task 9:** Write a poem.", "Write a poem."),
        ("**Task 9: Write a poem.**", "Write a poem."),
        ("### Task 9\nWrite a poem.", "Write a poem."),
        ("Task 9:\n\nWrite a poem.\nMake it rhyme.", "Write a poem."),
        ("9. Write a poem.\n10. Sing.", "Write a poem."),
        ("(9) Write a poem.", "Write a poem."),
        ("9) *Write a poem.*", "Write a poem."),
        ("- Write a poem.\n- Sing.", "Write a poem."),
        ('"Write a poem."', "Write a poem."),
        ("Task 9: “Write a poem.”", "Write a poem."),
        ("Sure, here is one more task:\n\nTask 9: Write a poem.", "Write a poem."),
        ("**Here are some tasks:**\n1. **Write a poem.**\n2. Sing.", "Write a poem."),
        ("Sure:\nHere you go:\nWrite a poem.", "Write a poem."),
        ("Task 9: Translate this sentence:\nThe cat sat.", "Translate this sentence:"),
        ("Translate this sentence:", "Translate this sentence:"),
        ("Translate this sentence:\n\n---\n", "Translate this sentence:"),
        ("```\nWrite a poem.\n```", "Write a poem."),
        ("Write  a\tpoem.\u2028Sing.", "Write a poem."),
        ("1. Task 9: 3) Write a poem.", "Write a poem."),
        ("What is 2**3 and 4**5?", "What is 2**3 and 4**5?"),
        ("3.5 is how many halves?", "3.5 is how many halves?"),
        ("9:30 is a good time. Why?", "9:30 is a good time. Why?"),
        ("What does C# have that C does not?", "What does C# have that C does not?"),
        ("What does __init__ do?", "What does __init__ do?"),
        ('"Yes" and "no": when?', '"Yes" and "no": when?'),
        ("Task lists: why do they help?", "Task lists: why do they help?"),
        ("写一首诗。", "写一首诗。"),
        ("", None),
        (" \n\t\n", None),
        ("Task 9:", None),
        ("**Task 9**", None),
        ("...\n---\n1.", None),
    ],
)
def test_the_task_is_found_in_a_reply(reply, task):
    assert parse_reply(reply) == task


marks = ["Task 9:", "task 10.", "9.", "10)", "(3)", "- ", "* ", "**", "*", "# ", '"', "“", "”", "'", "`"]
words = ["Sure, here:", "word", "Task", "9", ":", ".", "a b c", "é", "。", " ", "\n", "\r", "\x85", "\u2028"]
replies = st.one_of(st.text(), st.lists(st.sampled_from(marks + words)).map("".join))


@given(replies)
def test_any_reply_gives_nothing_or_one_clean_line_that_parses_to_itself(reply):
    task = parse_reply(reply)
    if task is not None:
        assert task.splitlines() == [task]
        assert task == " ".join(task.split())
        assert any(letter.isalnum() for letter in task)
        assert not re.match(
            r"(task\s*\d*\s*:|task \d+[.):]|\d{1,3}[.)](\s|$)|[-*+•#>](\s|$)|\*\*)", task, re.IGNORECASE
        )
        assert parse_reply(task) == task


@given(st.lists(st.sampled_from(["Task 9: ", "9. ", "- ", "**", "# ", '"'])), st.sampled_from(["Sing", "Count to 3"]))
def test_no_pile_of_labels_and_marks_hides_a_task(dress, task):
    assert parse_reply("".join(dress) + task).removeprefix('"').endswith(task)


def test_a_very_long_reply_is_read_too():
    assert parse_reply("# " * 1200 + "1. " * 1200 + "**" * 1200 + "Sing") == "Sing"


@pytest.mark.skipif(not SEED_TASKS.exists(), reason="needs ../shared/data/self_instruct")
def test_real_tasks_survive_being_numbered_and_announced():
    tasks = [json.loads(line)["instruction"] for line in SEED_TASKS.read_text(encoding="utf-8").splitlines()]
    rng = random.Random(0)
    for task in tasks:
        first_line = " ".join(task.strip().splitlines()[0].split())
        lead_in = rng.choice(["", "Sure! Here is one more task:\n\n"])
        label = rng.choice(["Task 9: ", "**Task 9:** ", "9. ", "9) ", "- "])
        expected = (
            first_line.strip('"') if first_line.count('"') == 2 and first_line[0] == first_line[-1] else first_line
        )
        assert parse_reply(f"{lead_in}{label}{task}") == expected


def test_prompts_of_a_slice_are_asked_in_one_call():
    calls = []

    class Counting(ScriptedContext):
        def generate(self, requests):
            calls.append(len(requests))
            return super().generate(requests)

    SelfInstruct(SelfInstructConfig()).propose(range(7), prompts(), Counting())
    assert calls == [7]
