"""The human data: reproducible, as mediocre as intended, and never what models are measured on."""

import subprocess
import sys
from statistics import mean

from selfreward.plugins.micro import seeds, world


def instructions_in(text):
    """Every instruction of the world that stands in a text, on a line of its own or after a label."""
    lines = [line.split(": ", 1) if line.startswith(("Task", "Instruction")) else [line] for line in text.split("\n")]
    return [part for parts in lines for part in parts if world.parse_instruction(part)]


def test_the_same_seed_gives_the_same_data_and_another_seed_other_data():
    for make in (seeds.ift, seeds.eft, seeds.tasks):
        assert make(3, 20) == make(3, 20)
        assert make(3, 20) != make(4, 20)


def test_seed_data_holds_no_evaluation_instruction():
    exchanges = [*seeds.ift(0), *seeds.eft(0), *seeds.tasks(0)]
    found = [text for exchange in exchanges for text in instructions_in(f"{exchange.prompt}\n{exchange.reply}")]
    assert len(found) > 1700
    assert not any(seeds.is_held_out(text) for text in found)
    measured = {*seeds.evaluation(), *(item.instruction for item in seeds.judge_evaluation())}
    assert all(seeds.is_held_out(text) for text in measured)
    assert not measured & set(found)


def test_human_answers_are_mediocre_on_purpose():
    scores = [world.true_score(exchange.prompt, exchange.reply) for exchange in seeds.ift(0)]
    assert 2.6 < mean(scores) < 3.0


def test_human_verdicts_are_right_and_spread_over_the_scores():
    verdicts = [exchange.reply for exchange in seeds.eft(0, 600)]
    shares = [sum(verdict.endswith(f"Score: {score}") for verdict in verdicts) / 600 for score in range(6)]
    assert all(0.05 < share < 0.3 for share in shares)


def test_a_smaller_evaluation_is_the_beginning_of_a_larger_one():
    assert seeds.evaluation(300)[:50] == seeds.evaluation(50)
    assert len(set(seeds.evaluation())) == 300


def test_judge_evaluation_states_the_true_scores():
    for item in seeds.judge_evaluation(30):
        assert len(item.answers) == 4
        assert all(answer.true_score == world.true_score(item.instruction, answer.text) for answer in item.answers)


def test_task_demonstrations_answer_with_one_valid_task():
    for exchange in seeds.tasks(0, 30):
        assert exchange.prompt.endswith("\nWrite Task 9 only.")
        assert world.parse_instruction(exchange.reply)


def test_the_world_imports_without_a_model_library():
    program = (
        "import sys, selfreward.plugins.micro.world, selfreward.plugins.micro.seeds; "
        "heavy = {'torch', 'transformers', 'numpy'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
