"""Prompts pass as they are, with or without answers, and come back from the row."""

from __future__ import annotations

from selfreward import Instruction, JudgedPrompt
from selfreward.plugins.selectors.prompts import Prompts, PromptsConfig
from selfreward.testing import check_selector, prompts


def test_it_keeps_the_contract():
    assert check_selector(Prompts(PromptsConfig()), [JudgedPrompt(prompt, [], []) for prompt in prompts()])


def test_a_prompt_comes_back_from_its_row():
    selector = Prompts(PromptsConfig())
    for prompt in prompts():
        [row] = selector.select(JudgedPrompt(prompt, [], []))
        assert isinstance(row, Instruction)
        assert row.as_prompt() == prompt
