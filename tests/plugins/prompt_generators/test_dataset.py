"""Prompts from the data."""

from selfreward import AnsweredPrompt, Prompt
from selfreward.plugins.prompt_generators.dataset import Dataset, DatasetConfig
from selfreward.testing import Rows, ScriptedContext, answered_prompts, check_prompt_generator

SPLIT = [AnsweredPrompt(Prompt.of(f"Prompt {k}.", source="ift"), []) for k in range(50)]
DATA = Rows(ift=SPLIT, evaluation=SPLIT[:3])


def propose(rows, seed=0, **options):
    return list(Dataset(DatasetConfig(**options)).propose(rows, [], ScriptedContext(data=DATA, run_seed=seed)))


def test_it_keeps_the_contract_of_prompt_generators():
    made = check_prompt_generator(Dataset(DatasetConfig()), rows=8)
    assert made == [group.prompt for group in answered_prompts()]
    check_prompt_generator(Dataset(DatasetConfig(n=4)))


def test_without_n_it_gives_the_whole_split_in_its_order_and_then_stops():
    assert propose(range(50)) == [answered.prompt for answered in SPLIT]
    assert propose(range(48, 60)) == [answered.prompt for answered in SPLIT[48:]]
    assert propose(range(50, 60)) == []
    assert propose(range(10), split="evaluation") == [answered.prompt for answered in SPLIT[:3]]


def test_with_n_it_draws_by_the_seed_without_repeating():
    first, second = propose(range(20), seed=0, n=20), propose(range(20), seed=1, n=20)
    assert first == propose(range(8), seed=0, n=20) + propose(range(8, 20), seed=0, n=20)
    assert first != second
    for drawn in (first, second):
        assert len({prompt.prompt_id for prompt in drawn}) == 20
        assert drawn != [answered.prompt for answered in SPLIT[:20]]


def test_filters_that_drop_rows_can_ask_for_more_than_n():
    assert {p.prompt_id for p in propose(range(60), n=20)} == {answered.prompt.prompt_id for answered in SPLIT}
