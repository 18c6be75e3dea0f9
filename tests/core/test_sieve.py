"""The sieve: an ordered fold that a resumed run can take up where it stopped."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.core.plugins import registry
from selfreward.core.records import Candidate, Prompt
from selfreward.core.rounds import Choice
from selfreward.core.sieve import Sieve


def choice(kind: str, name: str, **options: Any) -> Choice:
    plugin = registry().get(kind, name)
    return Choice(kind, plugin, plugin.config(**options))


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt.of(text, "M1") for text in texts]


LENGTH = choice("prompt_filters", "length", min_words=2, max_words=6)
NOVEL = choice("prompt_filters", "rouge_l", threshold=0.7)
FOX, FAST_FOX, LAMP = "Describe a fox by a river.", "Describe a fast fox by a river.", "Tell me about lamps."


def test_prompts_have_to_be_new() -> None:
    sieve = Sieve([], existing=prompts(FOX))
    kept, why = sieve.sift(prompts(FOX, LAMP, LAMP, "fox"))
    assert [prompt.text for prompt in kept] == [LAMP, "fox"]
    assert why == {"duplicate": 2}
    assert sieve.sift(prompts("fox"))[1] == {"duplicate": 1}


def test_forbidden_prompts_are_dropped_for_their_own_reason() -> None:
    sieve = Sieve([], existing=prompts(FOX))
    sieve.forbid(prompts(FOX, LAMP), "held out")
    kept, why = sieve.sift(prompts(FOX, LAMP, LAMP, "fox"))
    assert [prompt.text for prompt in kept] == ["fox"]
    assert why == {"held out": 3}


def test_the_first_filter_with_a_reason_is_counted() -> None:
    kept, why = Sieve([LENGTH, NOVEL], prompts(FOX)).sift(
        prompts("Fox", FAST_FOX, FOX, "One two three four five six.", LAMP)
    )
    assert [prompt.text for prompt in kept] == ["One two three four five six.", LAMP]
    assert why == {"too short": 1, "too long": 1, "duplicate": 1}
    _, why = Sieve([NOVEL, LENGTH], prompts(FOX)).sift(prompts(FAST_FOX))
    assert why == {"too similar": 1}


def test_what_was_dropped_does_not_stand_in_the_way() -> None:
    kept, why = Sieve([LENGTH, NOVEL]).sift(prompts(FAST_FOX, FAST_FOX, FOX))
    assert [prompt.text for prompt in kept] == [FOX]
    assert why == {"too long": 2}


def test_what_was_kept_does() -> None:
    kept, why = Sieve([NOVEL]).sift(prompts(FOX, FAST_FOX))
    assert [prompt.text for prompt in kept] == [FOX]
    assert why == {"too similar": 1}


def test_rows_of_one_prompt_are_no_duplicates_where_duplicates_are_allowed() -> None:
    [prompt] = prompts(FOX)
    answers = [
        Candidate.of(prompt, text, k, origin="M1", model="M1") for k, text in enumerate(["Red.", "Red.", "", "x" * 9])
    ]
    length = choice("candidate_filters", "length", min_chars=1, max_chars=8)
    kept, why = Sieve([length], duplicates=True).sift(answers)
    assert kept == answers[:2]
    assert sum(why.values()) == 2
    assert Sieve([], duplicates=True).sift(answers) == (answers, {})


def test_nothing_in_nothing_out() -> None:
    assert Sieve([LENGTH, NOVEL]).sift([]) == ([], {})
    assert Sieve([]).resume([]) == []


WORDS = st.lists(st.sampled_from(["fox", "river", "lamp", "a", "by"]), min_size=1, max_size=8).map(" ".join)
TEXTS = st.lists(WORDS, max_size=12)


@pytest.mark.parametrize("filters", [[], [LENGTH], [NOVEL], [LENGTH, NOVEL]], ids=["none", "length", "rouge_l", "both"])
@settings(deadline=None)
@given(seeds=TEXTS, texts=TEXTS, cut=st.integers(0, 12))
def test_a_resumed_fold_keeps_what_one_fold_keeps(
    filters: list[Choice], seeds: list[str], texts: list[str], cut: int
) -> None:
    rows, existing, held_out = prompts(*texts), prompts(*seeds), prompts("fox", "a lamp")

    def sieve() -> Sieve:
        made = Sieve(filters, existing)
        made.forbid(held_out, "held out")
        return made

    whole, why = sieve().sift(rows)
    before, why_before = sieve().sift(rows[:cut])
    again = sieve()
    assert again.resume(iter(before)) == before
    after, why_after = again.sift(iter(rows[cut:]))
    assert before + after == whole
    assert why_before + why_after == why
    assert len(whole) + sum(why.values()) == len(rows)
    ids = [prompt.prompt_id for prompt in whole]
    assert len(set(ids)) == len(ids)
    assert not {*ids} & {prompt.prompt_id for prompt in existing + held_out}
