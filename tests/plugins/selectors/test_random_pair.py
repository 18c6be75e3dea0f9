"""The control looks at texts, never at scores."""

import dataclasses

from selfreward import Candidate, JudgedPrompt, Judgement, Prompt
from selfreward.plugins.selectors.random_pair import RandomPair, RandomPairConfig
from selfreward.testing import check_selector


def judged(texts, scores, name="x"):
    prompt = Prompt.of(name, "test")
    candidates = [Candidate.of(prompt, text, k, origin="M1", model="M1") for k, text in enumerate(texts)]
    verdicts = [Judgement(c.candidate_id, "j", "-", "-", [s], s, [""]) for c, s in zip(candidates, scores, strict=True)]
    return JudgedPrompt(prompt, candidates, verdicts)


def test_it_keeps_the_contract():
    check_selector(RandomPair(RandomPairConfig()))


def test_scores_do_not_change_the_pair():
    selector = RandomPair(RandomPairConfig())
    pairs = set()
    for scores in ([1, 2, 3, 4], [4, 3, 2, 1], [2, 2, 2, 2]):
        [pair] = selector.select(judged("abcd", scores))
        pairs.add((pair.chosen_id, pair.rejected_id))
    assert len(pairs) == 1


def test_over_many_prompts_every_answer_is_chosen_equally_often():
    selector = RandomPair(RandomPairConfig())
    chosen = [next(selector.select(judged("abcd", [1, 2, 3, 4], f"p{i}"))).chosen_score for i in range(2000)]
    for score in (1, 2, 3, 4):
        assert 420 < chosen.count(score) < 580


def test_equal_texts_and_cut_off_answers_make_no_pair():
    selector = RandomPair(RandomPairConfig())
    assert not list(selector.select(judged("aaa", [1, 2, 3])))
    group = judged("ab", [1, 2])
    cut = [dataclasses.replace(group.candidates[0], finish_reason="length"), group.candidates[1]]
    assert not list(selector.select(JudgedPrompt(group.prompt, cut, group.judgements)))
