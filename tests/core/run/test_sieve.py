"""The sieve: an ordered fold that a resumed run can take up where it stopped."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.core.config.registry import registry
from selfreward.core.contracts.plugin import Plugin
from selfreward.core.contracts.records import Candidate, Preference, Prompt, ScoredCandidate
from selfreward.core.contracts.rounds import Choice
from selfreward.core.contracts.stages import Filter
from selfreward.core.run.sieve import EXAMPLES, LONGEST, Sieve


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


class Listener(Filter):
    """Drops what begins like a held-out prompt."""

    def begin(self, existing: Any) -> None:
        self.beginnings = {prompt.text[:3] for prompt in existing}

    def held_out(self, prompts: Any) -> None:
        self.beginnings |= {prompt.text[:3] for prompt in prompts}

    def reason(self, prompt: Any) -> str | None:
        return "same beginning" if prompt.text[:3] in self.beginnings else None


def test_filters_are_told_what_is_held_out() -> None:
    listener = Choice("prompt_filters", Plugin("listener", f"{__name__}:Listener", dict), {})
    sieve = Sieve([LENGTH, listener], existing=prompts(LAMP))
    sieve.forbid(iter(prompts(FOX)), "held out")
    kept, why = sieve.sift(prompts(FOX, "Describe a lamp.", "Tell me more.", "Name two rivers."))
    assert [prompt.text for prompt in kept] == ["Name two rivers."]
    assert why == {"held out": 1, "same beginning": 2}


def test_the_first_rows_dropped_for_a_reason_are_its_examples() -> None:
    sieve = Sieve([LENGTH])
    sieve.sift(prompts("a", "b\n\t c", "c", "c c", "c  c"))
    assert sieve.take_examples() == {"too short": ["a", "c"]}
    assert sieve.take_examples() == {}
    sieve.sift(prompts("d", "c c", "e", "one two three four five six seven " + "x" * LONGEST))
    [(short, [third]), (copies, [copy]), (long, [cut])] = sieve.take_examples().items()
    assert (short, third) == ("too short", "d")
    assert (copies, copy) == ("duplicate", "c c")
    assert long == "too long"
    assert len(cut) == LONGEST
    assert cut.startswith("one two")
    assert cut.endswith("x…")


def test_examples_of_candidates_and_of_training_rows() -> None:
    [prompt] = prompts(FOX)
    answers = [Candidate.of(prompt, text, k, origin="M1", model="M1") for k, text in enumerate(["Red. " * 20, "Re\nd"])]
    pair = Preference.of(prompt, *(ScoredCandidate(answer, 1.0) for answer in answers))
    for kind, name, options, row, example in [
        ("candidate_filters", "length", {"min_chars": 9}, answers[1], "Re d"),
        ("pair_filters", "length_ratio", {}, pair, FOX),
    ]:
        sieve = Sieve([choice(kind, name, **options)], duplicates=True)
        assert sieve.sift([row])[0] == []
        assert [*sieve.take_examples().values()] == [[example]]


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

    once, first, again = sieve(), sieve(), sieve()
    whole, why = once.sift(rows)
    before, why_before = first.sift(rows[:cut])
    shown = first.take_examples()
    assert again.resume(iter(before), shown) == before
    after, why_after = again.sift(iter(rows[cut:]))
    assert before + after == whole
    assert why_before + why_after == why
    for reason, texts in again.take_examples().items():
        shown.setdefault(reason, []).extend(texts)
    assert shown == once.take_examples()
    assert {reason: len(texts) for reason, texts in shown.items()} == {k: min(n, EXAMPLES) for k, n in why.items()}
    assert len(whole) + sum(why.values()) == len(rows)
    ids = [prompt.prompt_id for prompt in whole]
    assert len(set(ids)) == len(ids)
    assert not {*ids} & {prompt.prompt_id for prompt in existing + held_out}
