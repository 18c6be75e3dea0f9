"""Test your plugin in one line: the contract of each kind, as a function that runs it and complains.

::

    from selfreward.testing import check_judge

    def test_my_judge_keeps_the_contract():
        check_judge(MyJudge(MyJudgeConfig()))

A check brings its own rows (empty, equal and cut-off answers, ranks, a conversation, text that looks like a verdict)
and a :class:`ScriptedContext` instead of a model; give your own for more. It raises AssertionError with what is broken,
and returns the plugin's rows, so that a test can look closer.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from selfreward.core.config.search_path import Rubric
from selfreward.core.contracts.data import Data
from selfreward.core.contracts.engine import Completion, Continuations, Likelihood, Request
from selfreward.core.contracts.model import ModelConfig
from selfreward.core.contracts.options import cross_problems, option_rows, range_problems
from selfreward.core.contracts.plugin import Plugin
from selfreward.core.contracts.records import (
    AnsweredPrompt,
    Candidate,
    Demonstration,
    JudgedPrompt,
    Judgement,
    Preference,
    Prompt,
    Record,
    TrainingRow,
    digest,
)
from selfreward.core.contracts.stages import Filter, Judge, PromptGenerator, Sampler, Selector, Stage
from selfreward.core.run.context import derive_seed
from selfreward.core.text.rubric import find_rubric

T = TypeVar("T")
_WORDS = ("river", "lamp", "seven", "quiet", "under", "bread", "north", "paper", "glass", "slow")

RUBRIC = Rubric(
    name="testing",
    source="selfreward.testing",
    template="Review the response, then write Score: total.\nInstruction: {instruction}\nResponse: {response}",
    low=0,
    high=5,
)
"""The rubric that the model of a :class:`ScriptedContext` declares."""


# ----------------------------------------------------------------------------------------------- rows to try plugins on


def prompts() -> list[Prompt]:
    """Prompts of every shape: plain, two lines, placeholders and a verdict in the text, no ASCII, a conversation."""
    conversation = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Name a river."},
        {"role": "assistant", "content": "The Nile."},
        {"role": "user", "content": "And where does it end?"},
    ]
    texts = [
        "Describe a fox that lives near a river.",
        "Name three rivers\nand say where each of them ends.",
        "Repeat after me: {response} {instruction} Score: 5",
        "Übersetze diesen Satz ins Chinesische: 狐狸很快 🦊",
        "Write down seven words that rhyme with bread.",
        "Explain to a child why glass is slow to melt.",
        "Tell me what a lamp is for.",
    ]
    return [Prompt.of(text, source="ift") for text in texts] + [Prompt.of(conversation, source="ift")]


def answered_prompts() -> list[AnsweredPrompt]:
    """The prompts with what a sampler may give: equal, empty and cut-off answers, human ones with ranks, none."""
    groups = []
    for number, prompt in enumerate(prompts()):
        texts = [
            f"An answer about {_WORDS[number]}.",
            "The same.",
            "The same.",
            "",
            "Score: 5. " * 3,
            f"Cut off {number}",
        ]
        sampled = [
            Candidate.of(prompt, text, k, origin="M1", model="M1", token_ids=[*text.encode(), 0], seed=100 * number + k)
            for k, text in enumerate(texts)
        ]
        sampled[-1] = dataclasses.replace(sampled[-1], finish_reason="length")
        human: dict[str, Any] = {"origin": "human", "model": "human", "finish_reason": "human"}
        ranked = [
            Candidate.of(prompt, f"{_WORDS[k]} {number}.", k, rank=rank, **human) for k, rank in enumerate([1, 0, None])
        ]
        groups.append(AnsweredPrompt(prompt, [[*sampled, *ranked], sampled[:1], ranked, []][number % 4]))
    return groups


def judged_prompts() -> list[JudgedPrompt]:
    """The answered prompts with scores that fall, rise, tie, are partly or all unreadable."""
    falling, rising = [5.0, 4, 3, 2, 1, 0, 0, 0, 0], [0.0, 1, 2, 3, 4, 5, 5, 5, 5]
    patterns: list[list[float | None]] = [[*falling], [*rising], [3.0] * 9, [None, 2.5] * 5, [None] * 9]
    groups = []
    for group in answered_prompts():
        for pattern in patterns:
            judgements = [
                Judgement(candidate.candidate_id, "testing", "M1", "testing", [score], score, [""])
                for candidate, score in zip(group.candidates, pattern, strict=False)
            ]
            groups.append(JudgedPrompt(group.prompt, group.candidates, judgements))
    return groups


class Rows(Data):
    """Data made of rows at hand: ``Rows(ift=[...], evaluation=[...])``."""

    def __init__(self, **splits: Sequence[AnsweredPrompt]) -> None:
        super().__init__(None)
        self.splits = splits

    def split(self, name: str, seed: int) -> Sequence[AnsweredPrompt]:
        """The rows of a split; the same for every seed."""
        return self.splits.get(name, [])


# ---------------------------------------------------------------------------------------------- a context to run them


def talk(request: Request, k: int) -> str:
    """A few words and a verdict that depend on the conversation and on ``request.seed + k``."""
    rng = random.Random(digest([dict(turn) for turn in request.messages], request.seed + k))
    return f"The {' '.join(rng.choices(_WORDS, k=6))}.\nScore: {rng.randint(0, 5)}"


@dataclass
class ScriptedContext:
    """A stage's context whose model says what a function of (request, k) returns: a text, or a whole ``Completion``.

    It stands where only the plugin's own part is tested; what a model makes of a request is for tests with an engine.
    """

    reply: Callable[[Request, int], str | Completion] = talk
    data: Data = field(default_factory=lambda: Rows(ift=answered_prompts()))
    model: str = "M1"
    run_seed: int = 0
    declared_rubric: Rubric = RUBRIC
    model_config: ModelConfig = field(default_factory=ModelConfig)
    likely: Callable[[str | Sequence[int]], float] = lambda reply: -float(len(reply))
    """Log-probability of a token of this reply."""
    likely_elsewhere: Callable[[str | Sequence[int]], float] = lambda reply: -1.5 * len(reply) - 0.5
    """... to the model of another role, which :meth:`of` gives."""
    worth: Callable[[str | Sequence[int]], float | None] = lambda reply: float(len(reply))
    """Reward of this reply; None = too long for the reward model."""
    requests: list[Request] = field(default_factory=list)
    """What ``generate`` was asked, in order."""
    weighed: list[Continuations] = field(default_factory=list)
    """What ``likelihoods`` was asked, in order."""
    rewarded: list[Continuations] = field(default_factory=list)
    """What ``rewards`` was asked, in order."""
    counters: Counter[str] = field(default_factory=Counter)
    """What ``count`` was told."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The script's replies; tokens are the bytes of the text and an end-of-turn token, 0."""
        self.requests += requests
        return [[self._completion(request, k) for k in range(request.n)] for request in requests]

    def likelihoods(self, requests: Sequence[Continuations]) -> list[list[Likelihood]]:
        """The script's log-probabilities; tokens are the bytes of the text, with 0 where the reply is to end."""
        self.weighed += requests
        return [[self._likelihood(request, reply) for reply in request.replies] for request in requests]

    def rewards(self, requests: Sequence[Continuations]) -> list[list[float | None]]:
        """The script's rewards."""
        self.rewarded += requests
        return [[self.worth(reply) for reply in request.replies] for request in requests]

    def of(self, model: str) -> ScriptedContext:
        """The model of another role; what it is asked and what it counts is this context's."""
        return dataclasses.replace(self, model=model, likely=self.likely_elsewhere)

    def _likelihood(self, request: Continuations, reply: str | Sequence[int]) -> Likelihood:
        ids = [*reply.encode(), *([0] if request.ended else [])] if isinstance(reply, str) else list(reply)
        return Likelihood(ids, [self.likely(reply)] * len(ids))

    def _completion(self, request: Request, k: int) -> Completion:
        said = self.reply(request, k)
        return Completion(said, [*said.encode(), 0], "stop", request.seed + k) if isinstance(said, str) else said

    def seed(self, *ids: str | int) -> int:
        """A seed that depends on the run's seed and the ids."""
        return derive_seed("testing", self.run_seed, *ids)

    def rubric(self, name: str | None = None) -> Rubric:
        """The declared rubric for None; others as everywhere."""
        return self.declared_rubric if name is None else Rubric.load(name)

    def rubric_path(self, name: str | None = None) -> Path:
        """The rubric's file; the declared rubric stands in this one."""
        return Path(__file__) if name is None else find_rubric(name)

    def count(self, **figures: float) -> None:
        """Add to ``counters``."""
        self.counters.update(figures)

    def fresh(self, **changes: Any) -> ScriptedContext:
        """The same context before anything happened, with other fields where given."""
        return dataclasses.replace(
            self, **{"requests": [], "weighed": [], "rewarded": [], "counters": Counter(), **changes}
        )


# ------------------------------------------------------------------------------------------------- the contract by kind


def check_prompt_generator(
    generator: PromptGenerator, context: ScriptedContext | None = None, rows: int = 6
) -> list[Prompt | None]:
    """Check a prompt generator on rows 0, 1, ...: at most one prompt a row, the same in any slicing."""
    context = context or ScriptedContext()
    require(hasattr(generator.config, "n"), "the config of a prompt generator has n, the number of prompts wanted")
    earlier = prompts()[:3]
    made = _run(generator, context, lambda c: generator.propose(range(rows), earlier, c), earlier)
    require(len(made) <= rows, f"propose() gave {len(made)} prompts for {rows} rows")
    written = [prompt for prompt in made if prompt is not None]
    for prompt in written:
        require(isinstance(prompt, Prompt), f"propose() yields Prompt or None, got {prompt!r}")
        require(prompt.prompt_id == Prompt.of(prompt.messages, "").prompt_id, "prompt_id is the hash of Prompt.of()")
        require(prompt.messages[-1]["role"] == "user", "a prompt ends with the user's turn")
        require(bool(prompt.text.strip() and prompt.source), f"a prompt has text and a source: {prompt!r}")
    if generator.unit == "row":
        slices = [range(rows // 2), range(rows // 2, rows)]
        apart = [prompt for part in slices for prompt in generator.propose(part, earlier, context.fresh())]
        require(apart == made, "a row's prompt may depend on its number and on `earlier`, not on the slice")
    for some in ([], earlier[:1]):
        few = list(generator.propose(range(2), some, context.fresh()))
        require(len(few) <= 2, f"propose() gave {len(few)} prompts for 2 rows")
    check_rows(written)
    return made


def check_sampler(
    sampler: Sampler, given: Sequence[Prompt] | None = None, context: ScriptedContext | None = None
) -> list[Candidate]:
    """Check a sampler: the candidates of a prompt together, in the prompts' order, with ids of their own."""
    context, given = context or ScriptedContext(), prompts() if given is None else given
    made = _run(sampler, context, lambda c: sampler.sample(given, c), given)
    places = {prompt.prompt_id: place for place, prompt in enumerate(given)}
    for candidate in made:
        require(isinstance(candidate, Candidate), f"sample() yields Candidate, got {candidate!r}")
        require(candidate.prompt_id in places, f"a candidate answers prompt {candidate.prompt_id}, which was not given")
        known = ("stop", "length", "human")
        require(candidate.finish_reason in known, f"finish_reason is one of {known}, not {candidate.finish_reason!r}")
        require(bool(candidate.origin and candidate.model), "a candidate names its origin and model")
    order = [places[candidate.prompt_id] for candidate in made]
    require(order == sorted(order), "sample() yields a prompt's candidates together, in the order of the prompts")
    ids = Counter(candidate.candidate_id for candidate in made)
    require(max(ids.values(), default=1) == 1, "two candidates have the same id: number them with k in Candidate.of()")
    if sampler.unit != "table":
        apart = [candidate for prompt in given for candidate in sampler.sample([prompt], context.fresh())]
        require(apart == made, "a prompt's candidates may not depend on the other prompts of the slice")
    check_rows(made)
    return made


def check_judge(
    judge: Judge, answered: Sequence[AnsweredPrompt] | None = None, context: ScriptedContext | None = None
) -> list[Judgement]:
    """Check a judge: one judgement per candidate in order, and None, never a number, for what cannot be read."""
    context, answered = context or ScriptedContext(), answered_prompts() if answered is None else answered
    made = _run(judge, context, lambda c: judge.score(answered, c), answered)
    wanted = [candidate.candidate_id for group in answered for candidate in group.candidates]
    require(all(isinstance(judgement, Judgement) for judgement in made), "score() yields Judgement")
    require([j.candidate_id for j in made] == wanted, "score() yields one judgement per candidate, in their order")
    for judgement in made:
        _check_votes(judgement)
    if judge.unit != "table":
        apart = [judgement for group in answered for judgement in judge.score([group], context.fresh())]
        require(apart == made, "a judgement may not depend on the other prompts of the slice")
    if judge.uses_model:
        says_nothing = context.fresh(
            reply=lambda request, k: "", likely=lambda reply: -math.inf, worth=lambda reply: None
        )
        silent = list(judge.score(answered, says_nothing))
        unread = all(judgement.score is None for judgement in silent)
        require(unread, "a model that says nothing gives no score: an unreadable verdict is None, never a number")
        for judgement in silent:
            _check_votes(judgement)
    check_rows(made)
    return made


def check_selector(selector: Selector, judged: Sequence[JudgedPrompt] | None = None) -> list[TrainingRow]:
    """Check a selector: rows of the type it writes, traceable, and none from unscored, empty or cut-off candidates."""
    judged = judged_prompts() if judged is None else judged
    require(issubclass(selector.writes, TrainingRow), "`writes` names the row type, a subclass of TrainingRow")
    made = []
    for group in judged:
        rows = _twice(lambda group=group: selector.select(group), group)  # type: ignore[misc]
        usable = {answer.candidate.candidate_id: answer for answer in group.finished_by_score()}
        for row in rows:
            wanted = selector.writes.__name__
            require(type(row) is selector.writes, f"select() yields {wanted}, got {type(row).__name__}")
            require(row.prompt_id == group.prompt.prompt_id, "a row keeps the id of its prompt")
            for candidate_id, turns, score in _answers_of(row):
                require(candidate_id in usable, "a candidate that is unscored, empty or cut off was selected")
                require(score == usable[candidate_id].score, "a row's score is the judgement's")
                said = [{"role": "assistant", "content": usable[candidate_id].text}]
                require(turns == said, "a row holds the answer as it was given")
            if isinstance(row, Preference):
                require(row.chosen != row.rejected, "chosen and rejected are the same text")
        made += rows
    check_rows(made)
    return made


def check_filter(
    stage: Filter, rows: Sequence[Any], existing: Sequence[Any] = (), held_out: Sequence[Prompt] = ()
) -> list[str | None]:
    """Check a filter on rows of its kind; returns its reasons, one per row.

    A killed stage resumes by ``begin``, ``held_out`` and ``kept`` alone, so ``reason`` may not remember anything.
    """

    def sift(work: Filter) -> Iterable[str | None]:
        work.begin(existing)
        work.held_out(held_out)
        for row in rows:
            reason = work.reason(row)
            require(work.reason(row) == reason, "reason() must not remember: asked twice, it changed its mind")
            if reason is None:
                work.kept(row)
            yield reason

    reasons = _twice(lambda: sift(copy.deepcopy(stage)), (rows, existing, held_out))
    for reason in reasons:
        short = isinstance(reason, str) and 0 < len(reason) <= 40 and "\n" not in reason
        require(reason is None or short, f"reason() gives a word or two, or None to keep the row; got {reason!r}")
    return reasons


def check_plugin(plugin: Plugin) -> type:
    """Check a registration: the class loads and is complete, every option has a doc line and a default in its range."""
    require(plugin.name.isidentifier() and plugin.name.islower(), f"{plugin.name!r}: names are lower_case_words")
    for name, _, default, doc in option_rows(plugin.config):
        require(bool(doc), f"{plugin.name}.{name} has no docstring below the field")
        require(default != "required", f"{plugin.name}.{name} has no default; say in problems() that it must be set")
    config = plugin.config()
    wrong = [*range_problems(config, plugin.name)]
    require(not wrong, f"a default lies outside its own range: {wrong}")
    said = list(cross_problems(config, plugin.name))
    require(all(isinstance(problem, str) for problem in said), f"problems() gives sentences, got {said}")
    loaded = plugin.load()
    require(isinstance(loaded, type), f"{plugin.target} is not a class")
    missing = [name for name, member in inspect.getmembers(loaded) if getattr(member, "__isabstractmethod__", False)]
    require(not missing, f"{plugin.target} does not implement {', '.join(missing)}")
    loaded(config)
    return loaded


def check_rows(rows: Sequence[Record]) -> None:
    """Rows fit their Arrow schema and come back from Arrow and from a pickle as they were."""
    for kind in {type(row) for row in rows}:
        same = [row for row in rows if type(row) is kind]
        table = kind.table(same)
        require(table.schema.equals(kind.schema(), check_metadata=True), f"{kind.__name__}: not the declared schema")
        empty = [column.name for column in table.schema if not column.nullable and table[column.name].null_count]
        require(not empty, f"{kind.__name__}: None in {', '.join(empty)}, which must have a value")
        require(kind.rows(table) == same, f"{kind.__name__}: rows change on their way through Arrow")
    require(pickle.loads(pickle.dumps(rows)) == rows, "rows change on their way through a pickle")


def require(holds: bool, otherwise: str) -> None:
    """Raise AssertionError with that message unless the condition holds; also under ``python -O``."""
    if not holds:
        raise AssertionError(otherwise)


def _check_votes(judgement: Judgement) -> None:
    readable = [vote for vote in judgement.votes if vote is not None]
    require(bool(judgement.votes), "votes has one entry per verdict that was asked for")
    unscored = judgement.score is None
    require(unscored == (not readable), f"score is None exactly where no vote could be read: {judgement}")
    numbers = readable if judgement.score is None else [*readable, judgement.score]
    require(all(map(math.isfinite, numbers)), f"scores and votes are finite numbers: {judgement}")
    require(len(judgement.rationales) == len(judgement.votes), "rationales has one entry per vote")
    named = judgement.judge and judgement.model and judgement.rubric
    require(bool(named), "a judgement names judge, model and rubric ('-' = none)")


def _answers_of(row: Any) -> list[tuple[str, list[dict[str, str]], float]]:
    if isinstance(row, Preference):
        chosen = (row.chosen_id, row.chosen, row.chosen_score)
        return [chosen, (row.rejected_id, row.rejected, row.rejected_score)]
    return [(row.candidate_id, row.completion, row.score)] if isinstance(row, Demonstration) else []


def _run(stage: Stage, context: ScriptedContext, work: Callable[[ScriptedContext], Iterable[T]], given: Any) -> list[T]:
    _check_stage(stage, context)
    used: list[ScriptedContext] = []

    def once() -> Iterable[T]:
        used.append(context.fresh())
        return work(used[-1])

    made = _twice(once, given)
    silent = not (used[0].requests or used[0].weighed or used[0].rewarded)
    require(stage.uses_model or silent, "the context's model was run, but the class does not say uses_model = True")
    return made


def _check_stage(stage: Stage, context: ScriptedContext) -> None:
    problems, files = stage.problems(context), stage.files(context)
    require(not problems, f"problems() says that this cannot run: {problems}")
    there = all(isinstance(path, Path) and path.is_file() for path in files)
    require(there, f"files() gives paths of files that exist, got {files}")
    role = getattr(getattr(stage, "config", None), "model", None)
    wanted = 'uses_model = True wants `model: str = "policy"` in the config'
    require(not stage.uses_model or isinstance(role, str), wanted)


def _twice(work: Callable[[], Iterable[T]], given: Any) -> list[T]:
    before = copy.deepcopy(given)
    first, second = list(work()), list(work())
    require(first == second, "the same rows, config and seed must give the same result")
    require(given == before, "the rows that were given are not to be changed")
    return first
