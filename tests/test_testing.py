"""The contract suite catches what it promises to catch: each plugin here breaks one rule."""

import dataclasses
import itertools
import random
from dataclasses import dataclass

import pytest

from selfreward import (
    Candidate,
    Continuations,
    Demonstration,
    Filter,
    Judge,
    Judgement,
    Plugin,
    Preference,
    Prompt,
    PromptGenerator,
    Request,
    Sampler,
    Sampling,
    Selector,
    option,
)
from selfreward.testing import (
    ScriptedContext,
    answered_prompts,
    check_filter,
    check_judge,
    check_plugin,
    check_prompt_generator,
    check_rows,
    check_sampler,
    check_selector,
    prompts,
    talk,
)


@dataclass
class Config:
    """Options of the plugins in this file."""

    n: int | None = None
    """Prompts wanted."""
    model: str = "policy"
    """Role of the model."""


def all_candidates(answered):
    return [candidate for group in answered for candidate in group.candidates]


def verdict(candidate, votes=(1.0,), score=1.0, rationales=("",)):
    return Judgement(candidate.candidate_id, "j", "-", "-", list(votes), score, list(rationales))


class Asking(Judge):
    uses_model = True

    def score(self, answered, context):
        candidates = all_candidates(answered)
        requests = [Request([{"role": "user", "content": c.text}], Sampling(), 0) for c in candidates]
        for candidate, [reply] in zip(candidates, context.generate(requests), strict=True):
            yield self.read(candidate, reply.text)


class ZeroForSilence(Asking):
    def read(self, candidate, text):
        return verdict(candidate, [float(len(text))], float(len(text)))


class ScoreWithoutVote(Asking):
    def read(self, candidate, text):
        return verdict(candidate, [None], 0.0)


class LosesWords(Asking):
    def read(self, candidate, text):
        return verdict(candidate, [None], None, [])


class Undeclared(ZeroForSilence):
    uses_model = False


class ZeroForNoReward(Judge):
    uses_model = True

    def score(self, answered, context):
        for group in answered:
            asked = [Continuations(group.prompt.messages, [c.text for c in group.candidates])]
            for candidate, reward in zip(group.candidates, context.rewards(asked)[0], strict=True):
                yield verdict(candidate, [reward or 0.0], reward or 0.0)


class UndeclaredReward(ZeroForNoReward):
    uses_model = False


class Reversed(Judge):
    def score(self, answered, context):
        return [verdict(candidate) for candidate in reversed(all_candidates(answered))]


class NotANumber(Judge):
    def score(self, answered, context):
        return [verdict(candidate, [float("inf")], float("inf")) for candidate in all_candidates(answered)]


class Moody(Judge):
    def score(self, answered, context):
        return [verdict(candidate, [x := random.random()], x) for candidate in all_candidates(answered)]


class Relative(Judge):
    def score(self, answered, context):
        candidates = all_candidates(answered)
        return [verdict(candidate, [float(len(candidates))], float(len(candidates))) for candidate in candidates]


class Meddling(Judge):
    def score(self, answered, context):
        made = [verdict(candidate) for candidate in all_candidates(answered)]
        for group in answered:
            group.candidates.reverse()
            group.prompt.parents.append("x")
        return made[: len(made)]


@pytest.mark.parametrize(
    ("judge", "complaint"),
    [
        (ZeroForSilence, "says nothing gives no score"),
        (ScoreWithoutVote, "exactly where no vote could be read"),
        (LosesWords, "one entry per vote"),
        (Undeclared, "uses_model = True"),
        (ZeroForNoReward, "says nothing gives no score"),
        (UndeclaredReward, "uses_model = True"),
        (Reversed, "in their order"),
        (NotANumber, "finite"),
        (Moody, "same result"),
        (Relative, "other prompts of the slice"),
        (Meddling, "not to be changed|same result"),
    ],
)
def test_broken_judges_are_caught(judge, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_judge(judge(Config()))


def test_the_model_of_another_role_is_another_and_what_it_is_asked_is_the_stages():
    context = ScriptedContext(worth=lambda reply: 2.0 * len(reply))
    asked = [Continuations([{"role": "user", "content": "Hm?"}], ["ab", "c"])]
    other = context.of("base")
    assert (context.model, other.model) == ("M1", "base")
    [mine, _], [theirs, _] = context.likelihoods(asked)[0], other.likelihoods(asked)[0]
    assert (mine.logprobs, theirs.logprobs) == ([-2.0] * 3, [-3.5] * 3)
    other.count(looks=1)
    assert other.rewards(asked) == [[4.0, 2.0]]
    assert (context.weighed, context.rewarded, context.counters) == (asked * 2, asked, {"looks": 1})
    assert context.fresh().rewarded == []


def test_a_judge_that_uses_a_model_names_its_role():
    with pytest.raises(AssertionError, match="model: str"):
        check_judge(ZeroForSilence(None))


def test_a_plugin_that_says_it_cannot_run_is_told_so():
    class Refusing(Reversed):
        def problems(self, context):
            return ["judge=refusing never works: use another"]

    with pytest.raises(AssertionError, match="never works"):
        check_judge(Refusing(Config()))


def candidate(prompt, k=0, **fields):
    return Candidate.of(prompt, "text", k, **{"origin": "M1", "model": "M1", **fields})


class SameIds(Sampler):
    def sample(self, prompts, context):
        return [candidate(prompt) for prompt in prompts for _ in range(2)]


class Interleaved(Sampler):
    def sample(self, prompts, context):
        return [candidate(prompt, k) for k in range(2) for prompt in prompts]


class OwnWords(Sampler):
    def sample(self, prompts, context):
        return [candidate(prompt, finish_reason="eos") for prompt in prompts]


class OffTopic(Sampler):
    def sample(self, prompts, context):
        return [candidate(Prompt.of("another", source="x"))]


class Growing(Sampler):
    def sample(self, prompts, context):
        return [dataclasses.replace(candidate(prompt), seed=k) for k, prompt in enumerate(prompts)]


@pytest.mark.parametrize(
    ("sampler", "complaint"),
    [
        (SameIds, "same id"),
        (Interleaved, "in the order of the prompts"),
        (OwnWords, "finish_reason"),
        (OffTopic, "was not given"),
        (Growing, "other prompts of the slice"),
    ],
)
def test_broken_samplers_are_caught(sampler, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_sampler(sampler(Config()))


class TooMany(PromptGenerator):
    def propose(self, rows, earlier, context):
        return [Prompt.of(f"Task {row}", source="x") for row in range(rows.stop + 1)]


class FromZero(PromptGenerator):
    def propose(self, rows, earlier, context):
        return [Prompt.of(f"Task {k}", source="x") for k, _ in enumerate(rows)]


class OwnIds(PromptGenerator):
    def propose(self, rows, earlier, context):
        return [Prompt(f"{row}", [{"role": "user", "content": "Sing"}], "x") for row in rows]


class Blank(PromptGenerator):
    def propose(self, rows, earlier, context):
        return [Prompt.of(" ", source="x") for _ in rows]


class Answering(PromptGenerator):
    def propose(self, rows, earlier, context):
        return [Prompt.of([{"role": "assistant", "content": "Sing"}], source="x") for _ in rows]


class NeedsEarlier(PromptGenerator):
    def propose(self, rows, earlier, context):
        return [Prompt.of(f"{row}", source="x") for row in range(rows.start, rows.stop + (not earlier))]


@pytest.mark.parametrize(
    ("generator", "complaint"),
    [
        (TooMany, "7 prompts for 6 rows"),
        (FromZero, "not on the slice"),
        (OwnIds, "hash"),
        (Blank, "text and a source"),
        (Answering, "ends with the user"),
        (NeedsEarlier, "3 prompts for 2 rows"),
    ],
)
def test_broken_prompt_generators_are_caught(generator, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_prompt_generator(generator(Config()))


class Greedy(Selector):
    """Takes every scored answer, cut off or not."""

    writes = Demonstration

    def select(self, judged):
        yield from (Demonstration.of(judged.prompt, answer) for answer in judged.scored())


class Flattering(Selector):
    writes = Demonstration

    def select(self, judged):
        for answer in judged.finished_by_score():
            yield Demonstration.of(judged.prompt, dataclasses.replace(answer, score=answer.score + 1))


class OtherRows(Selector):
    writes = Preference

    def select(self, judged):
        yield from (Demonstration.of(judged.prompt, answer) for answer in judged.finished_by_score())


class EqualTexts(Selector):
    writes = Preference

    def select(self, judged):
        for pair in itertools.pairwise(judged.finished_by_score()):
            yield Preference.of(judged.prompt, *pair)


@pytest.mark.parametrize(
    ("selector", "complaint"),
    [
        (Greedy, "unscored, empty or cut off"),
        (Flattering, "score is the judgement's"),
        (OtherRows, "yields Preference, got Demonstration"),
        (EqualTexts, "same text"),
    ],
)
def test_broken_selectors_are_caught(selector, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_selector(selector(Config()))


class Remembering(Filter):
    def begin(self, existing):
        self.seen = set()

    def reason(self, row):
        known = row.prompt_id in self.seen
        self.seen.add(row.prompt_id)
        return "seen before" if known else None


class Chatty(Filter):
    def reason(self, row):
        return f"dropped because its text, which reads {row.text!r}, is bad"


class Silent(Filter):
    def reason(self, row):
        return ""


@pytest.mark.parametrize(
    ("stage", "complaint"), [(Remembering, "must not remember"), (Chatty, "a word or two"), (Silent, "a word or two")]
)
def test_broken_filters_are_caught(stage, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_filter(stage(Config()), prompts())


class Unfinished(Judge):
    pass


@dataclass
class Undocumented:
    """Options of nothing."""

    words: int = 3


@dataclass
class OutOfRange:
    """Options of nothing."""

    words: int = option(0, ge=1)
    """How many."""


@pytest.mark.parametrize(
    ("plugin", "complaint"),
    [
        (Plugin("mine", f"{__name__}:Unfinished", Config), "does not implement score"),
        (Plugin("mine", f"{__name__}:Reversed", Undocumented), "mine.words has no docstring"),
        (Plugin("mine", f"{__name__}:Reversed", OutOfRange), "outside its own range"),
        (Plugin("My judge", f"{__name__}:Reversed", Config), "lower_case_words"),
    ],
)
def test_broken_registrations_are_caught(plugin, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_plugin(plugin)


def test_rows_that_do_not_survive_are_caught():
    [group, *_] = answered_prompts()
    broken = dataclasses.replace(group.candidates[0], origin=None)
    with pytest.raises(AssertionError, match="None in origin"):
        check_rows([broken])
    with pytest.raises(AssertionError, match="through Arrow"):
        check_rows([dataclasses.replace(group.candidates[0], token_ids=(1, 2))])


def test_sample_k_of_a_scripted_request_equals_the_only_sample_with_that_seed():
    messages = [{"role": "user", "content": "Sing."}]
    context = ScriptedContext()
    [three] = context.generate([Request(messages, Sampling(), seed=5, n=3)])
    alone = [context.generate([Request(messages, Sampling(), seed=5 + k)])[0][0] for k in range(3)]
    assert three == alone
    assert len({completion.text for completion in three}) == 3
    assert talk(Request(messages, Sampling(), 5), 1) == three[1].text
