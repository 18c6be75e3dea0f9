"""Health gates: figures that show a run going wrong, each with a warning, some with a stop.

A gate is a row of ``GATES``: a function that reads one figure off an event, the side on which it is bad, the likely
cause and the knobs that help; of the knobs only those are named that the run has. The levels are the options.

Only the loop's stages are looked at, and earlier ones in which a model worked: people may rank and answer as they like.
The figures come from finished artifacts alone, so a run that reuses them gets the same findings.

Why one stop by default: below a twentieth of readable verdicts, 4 answers with 3 votes each give 10 prompts in 100 a
pair (1 - q^4 - 4(1-q)q^3 with q = 0.95^3), ranked by single votes of a judge that does not know its rubric's form.
Sources: piled-up scores and growing answers, arXiv:2401.10020 §3.2; falling log-probability, arXiv:2404.19733.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from selfreward import Event, Finding, Metric, Monitor, Severity, option


@dataclass
class HealthConfig:
    """The levels; 0 or null switches one off."""

    parse_rate_warn: float | None = option(0.9, ge=0, le=1)
    """Share of the judge's verdicts that can be read, at least."""
    parse_rate_stop: float | None = option(0.05, ge=0, le=1)
    """The same, below which a run whose judge is a model ends: next to nothing would be trained on."""
    pair_yield_warn: float | None = option(0.2, ge=0)
    """Training rows per prompt, at least."""
    pair_yield_stop: float | None = option(0.0, ge=0)
    """The same, below which the run ends."""
    saturation_warn: float | None = option(0.8, ge=0, le=1)
    """Share of the scored answers that have the commonest score, at most."""
    saturation_stop: float | None = option(0.0, ge=0, le=1)
    """The same, above which the run ends."""
    ties_warn: float | None = option(0.5, ge=0, le=1)
    """Share of the prompts whose scored answers all have one score, at most."""
    cut_off_warn: float | None = option(0.1, ge=0, le=1)
    """Share of the answers cut off at the token limit, at most."""
    cut_off_stop: float | None = option(0.0, ge=0, le=1)
    """The same, above which the run ends."""
    novelty_warn: float | None = option(0.5, ge=0, le=1)
    """Share of the prompts tried by a model that are new: readable, no duplicate, not too similar; at least."""
    chosen_fall_warn: float | None = option(5.0, ge=0)
    """Nats that the log-probability of the chosen answers may fall below the reference's; 5 are a factor of 150."""
    chosen_fall_stop: float | None = option(0.0, ge=0)
    """The same, above which the run ends."""
    length_growth_warn: float | None = option(1.5, ge=0)
    """Mean answer length over that of the loop's first model or the previous one, at most."""
    length_growth_stop: float | None = option(0.0, ge=0)
    """The same, above which the run ends."""
    length_shrink_warn: float | None = option(0.6, ge=0)
    """Mean answer length over that of the loop's first model or the previous one, at least."""
    length_shrink_stop: float | None = option(0.0, ge=0)
    """The same, below which the run ends."""
    agreement_fall_warn: float | None = option(0.05, ge=0, le=1)
    """Pairwise accuracy of the judge that may be lost against the best model so far, beyond the interval's noise."""
    agreement_fall_stop: float | None = option(0.0, ge=0, le=1)
    """The same, above which the run ends."""
    held_out_parse_rate_warn: float | None = option(0.9, ge=0, le=1)
    """Share of the verdicts on held-out answers that can be read, at least."""
    min_items: int = option(20, ge=1)
    """Verdicts, prompts, answers or pairs that must stand behind a figure before its gate speaks."""


@dataclass
class Seen:
    """What a gate may look at besides its event."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """The run's composed config."""
    candidates: Path | None = None
    """The newest table of candidates."""
    start: str = ""
    """The model the loop starts from."""
    metrics: dict[str, dict[tuple[str, str], Metric]] = field(default_factory=dict)
    """Model -> (evaluator, metric) -> figure, of the models so far, in order, this one included."""


@dataclass(frozen=True)
class Reading:
    """A figure, the number of items behind it, and how to say it."""

    value: float
    n: float
    text: str
    may_stop: bool = True
    """Whether the level that ends a run applies."""


Measure = Callable[[Event, Seen], Reading | None]


# ------------------------------------------------------------------------------------------------ figures of the stages


def parse_rate(event: Event, seen: Seen) -> Reading | None:
    """Readable verdicts over verdicts. A judge that is no model ends no run: it may know some answers only."""
    votes, unreadable = (event.figures.get(name, 0) for name in ("votes", "unreadable"))
    reading = _share(votes - unreadable, votes, "verdicts could be read")
    return reading and replace(reading, may_stop=bool(event.model))


def pair_yield(event: Event, seen: Seen) -> Reading | None:
    """Training rows over prompts."""
    rows, prompts = (event.figures.get(name, 0) for name in ("rows", "prompts"))
    text = f"{rows:,.0f} training rows came of {prompts:,.0f} prompts"
    return Reading(rows / prompts, prompts, f"{text}, {rows / prompts:.1%}") if prompts else None


def saturation(event: Event, seen: Seen) -> Reading | None:
    """Answers with the commonest score over scored answers."""
    counts: Counter[float] = Counter()
    for shard in _shards(event.folder, "score"):
        counts.update(score for score in shard["score"] if score is not None)
    # of equally common scores the highest is named, so that the text does not depend on the order of the rows
    score, count = max(counts.items(), key=lambda item: item[::-1], default=(0.0, 0))
    return _share(count, counts.total(), f"scored answers have the score {score:g}")


def ties(event: Event, seen: Seen) -> Reading | None:
    """Prompts whose answers all have one score over prompts with at least two scored answers."""
    tied = prompts = 0
    # shard i of the one table belongs to shard i of the other, row by row
    for answers, verdicts in zip(_shards(seen.candidates, "prompt_id"), _shards(event.folder, "score"), strict=True):
        rows = zip(answers["prompt_id"], verdicts["score"], strict=True)
        for _, group in groupby(rows, key=lambda row: row[0]):
            scores = [score for _, score in group if score is not None]
            prompts += len(scores) > 1
            tied += len(scores) > 1 and len(set(scores)) == 1
    return _share(tied, prompts, "prompts have answers that all got one score")


def cut_off(event: Event, seen: Seen) -> Reading | None:
    """Answers cut off over answers."""
    cut, rows = (event.figures.get(name, 0) for name in ("cut_off", "rows"))
    return _share(cut, rows, "answers were cut off at the token limit")


def novelty(event: Event, seen: Seen) -> Reading | None:
    """New prompts over prompts tried by a model; prompts out of the data are as they are."""
    old = sum(event.figures.get(f"dropped: {reason}", 0) for reason in ("duplicate", "too similar", "near duplicate"))
    tried = event.figures.get("tried", 0) if event.model else 0
    return _share(event.figures.get("parsed", 0) - old, tried, "prompts tried were new")


def chosen_fall(event: Event, seen: Seen) -> Reading | None:
    """log reference(chosen) - log model(chosen), mean over the pairs."""
    if "chosen_change" not in event.figures:
        return None
    change, rows = event.figures["chosen_change"], event.figures.get("rows", 0)
    text = f"{change:+.1f} nats in the log-probability of a chosen answer against the reference's ({rows:,.0f} pairs)"
    return Reading(-change, rows, text)


def _share(part: float, whole: float, what: str) -> Reading | None:
    return Reading(part / whole, whole, f"{part / whole:.1%} of {whole:,.0f} {what}") if whole else None


def _shards(folder: Path | None, *columns: str) -> Iterator[dict[str, list[Any]]]:
    """Columns of a table, one shard at a time."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("*.parquet")) if folder else ():
        yield pq.read_table(path, columns=list(columns)).to_pydict()


# ------------------------------------------------------------------------------------------------ figures of the models


def length_ratio(event: Event, seen: Seen, worse: Callable[[Sequence[tuple[float, str]]], Any]) -> Reading | None:
    """Mean answer length over that of the loop's first model, or of the previous one where that is ``worse``."""
    lengths = _figures(seen, "loop", "response_length")
    mine = lengths.pop(event.model, None)
    others = {name: m.value for name, m in lengths.items() if m.value and name in (seen.start, list(lengths)[-1])}
    if mine is None or mine.value is None or not others:
        return None
    ratio, name = worse([(mine.value / length, name) for name, length in others.items()])
    text = (
        f"{event.model}'s answers have {mine.value:.0f} characters, {ratio:.2f} times the {others[name]:.0f} of {name}"
    )
    return Reading(ratio, mine.n, text)


def agreement_fall(event: Event, seen: Seen) -> Reading | None:
    """Best pairwise accuracy so far - this model's; 0 while the best lies within this one's interval."""
    known = _figures(seen, "judge_agreement", "pairwise_accuracy")
    mine = known.pop(event.model, None)
    best, name = max(((m.value, name) for name, m in known.items() if m.value is not None), default=(None, ""))
    if mine is None or mine.value is None or best is None:
        return None
    text = f"as a judge {event.model} orders {mine.value:.1%} of {mine.n:,} pairs as people do, {name} {best:.1%}"
    within = mine.high is not None and best <= mine.high
    return Reading(0.0 if within else best - mine.value, mine.n, text)


def held_out_parse_rate(event: Event, seen: Seen) -> Reading | None:
    """Readable verdicts over verdicts on the held-out answers."""
    mine = _figures(seen, "judge_agreement", "parse_rate").get(event.model)
    if mine is None or mine.value is None:
        return None
    return _share(mine.value * mine.n, mine.n, f"verdicts by {event.model} on held-out answers could be read")


def _figures(seen: Seen, evaluator: str, metric: str) -> dict[str, Metric]:
    return {name: own[evaluator, metric] for name, own in seen.metrics.items() if (evaluator, metric) in own}


# ------------------------------------------------------------------------------------------------------------ the gates


@dataclass(frozen=True)
class Gate:
    """One row of the table."""

    name: str
    """Its levels are the options ``<name>_warn`` and, where there is one, ``<name>_stop``."""
    stage: str
    """Stage at whose end it looks; empty = when a model has been measured."""
    measure: Measure
    side: str
    """``below`` or ``above`` its level a figure is bad."""
    form: str
    """How a level is written."""
    cause: str
    knobs: tuple[str, ...]
    """``raise optimizer.nll`` or ``judge.model=M1``; named where the run has that option and not that value."""


FORGETS = ("raise optimizer.nll", "lower optimizer.lr", "judge.model=M1")
VARIETY = ("raise judge.votes", "raise sampler.temperature", "raise sampler.n")

GATES = (
    Gate("novelty", "prompts", novelty, "below", "{:.0%}",
         "the model repeats itself or its examples",
         ("raise prompt_generator.temperature", "raise prompt_generator.shots_seed", "lower prompt_generator.n")),
    Gate("cut_off", "candidates", cut_off, "above", "{:.0%}",
         "answers do not end within the limit, and those are never trained on",
         ("raise sampler.max_new_tokens", "pair_filters=[length_ratio]")),
    Gate("parse_rate", "judgements", parse_rate, "below", "{:.0%}",
         "the judge does not keep to the rubric's form, or cannot tell what these answers are worth",
         ("recipe.eft.source=file", "raise judge.max_new_tokens", "lower judge.temperature", *FORGETS)),
    Gate("saturation", "judgements", saturation, "above", "{:.0%}",
         "the judge hardly tells answers apart",
         ("another judge.rubric", *VARIETY)),
    Gate("ties", "judgements", ties, "above", "{:.0%}",
         "the answers are alike or the scores too coarse, and ties teach nothing",
         VARIETY),
    Gate("pair_yield", "training_set", pair_yield, "below", "{:.0%}",
         "ties, unread verdicts, answers cut off, or filters leave little to learn from",
         ("lower selector.margin", "lower selector.threshold", *VARIETY)),
    Gate("chosen_fall", "model", chosen_fall, "above", "a fall of {:g} nats",
         "the loss pushes the preferred answers down with the others",
         ("raise optimizer.nll", "lower optimizer.lr", "raise optimizer.beta")),
    Gate("length_growth", "", partial(length_ratio, worse=max), "above", "{:g} times",
         "length is rewarded rather than content",
         ("pair_filters=[length_ratio]", "lower pair_filters.length_ratio.max_ratio", "raise optimizer.beta")),
    Gate("length_shrink", "", partial(length_ratio, worse=min), "below", "{:g} times",
         "brevity is rewarded rather than content, or the model degenerates",
         ("raise optimizer.nll", "lower optimizer.lr", "raise optimizer.beta")),
    Gate("agreement_fall", "", agreement_fall, "above", "a fall of {:.0%}",
         "training on answers makes the model forget how to judge",
         FORGETS),
    Gate("held_out_parse_rate", "", held_out_parse_rate, "below", "{:.0%}",
         "training on answers makes the model forget the rubric's form",
         FORGETS),
)  # fmt: skip


class Health(Monitor):
    """Holds every gate of an event against its levels."""

    config: HealthConfig

    def __init__(self, config: HealthConfig) -> None:
        super().__init__(config)
        self.seen = Seen()

    def run_started(self, event: Event) -> Sequence[Finding]:
        self.seen = Seen(event.config)
        return ()

    def stage_finished(self, event: Event) -> Sequence[Finding]:
        """Gates of the stage, unless people did the work."""
        if event.stage == "candidates":
            self.seen.candidates = event.folder
        return self._findings(event) if event.iteration or event.model else ()

    def iteration_finished(self, event: Event) -> Sequence[Finding]:
        """Gates of the model, if the loop made it; what seeds the loop is what it is compared with."""
        self.seen.metrics[event.model] = {(m.evaluator, m.metric): m for m in event.metrics}
        if not event.iteration and any(m.metric == "response_length" for m in event.metrics):
            self.seen.start = event.model
        return self._findings(event) if event.iteration else ()

    def _findings(self, event: Event) -> list[Finding]:
        found = [self._finding(gate, event) for gate in GATES if gate.stage == event.stage]
        return [finding for finding in found if finding]

    def _finding(self, gate: Gate, event: Event) -> Finding | None:
        """The graver of what the gate has to say."""
        reading = gate.measure(event, self.seen)
        if reading is None or reading.n < self.config.min_items:
            return None
        for severity, word in ((Severity.stop, "stop"), (Severity.warning, "warn")):
            level = getattr(self.config, f"{gate.name}_{word}", None)
            if not level or (word == "stop" and not reading.may_stop):
                continue
            if reading.value < level if gate.side == "below" else reading.value > level:
                where = f"iter-{event.iteration:02d}" if event.iteration else event.round
                limit = f"{word} {gate.side} {gate.form.format(level)}"
                text = f"{where}: {reading.text} ({limit}): {gate.cause}{self._ways_out(gate, event)}"
                return Finding(severity, text)
        return None

    def _ways_out(self, gate: Gate, event: Event) -> str:
        scope = "" if event.iteration else f"recipe.{event.round}."
        knobs = [known for knob in gate.knobs if (known := advice(knob, self.seen.config, event.model, scope))]
        return f"; ways out: {', '.join(knobs)}" if knobs else ""


def advice(knob: str, config: Mapping[str, Any], model: str, scope: str = "") -> str:
    """The knob with its present value; empty where the run has no such option, or nothing would change.

    Args:
        knob: ``<verb> <option>`` or ``<option>=<value>``; ``<group>=[<plugin>]`` adds to a list.
        config: the run's composed config.
        model: the model the finding is about, which is not advised in place of itself.
        scope: ``recipe.<round>.`` where the options of a round before the loop are meant.
    """
    verb, _, rest = knob.rpartition(" ")
    path, _, value = f"{scope}{rest}".partition("=")
    here: Any = config
    for part in path.split("."):
        if not isinstance(here, Mapping) or part not in here:
            return ""
        here = here[part]
    if value:
        has = (
            value.strip("[]") in here
            if isinstance(here, Mapping)
            else value.lower() in (str(here).lower(), model.lower())
        )
        return "" if has else f"{path}={value}"
    return "" if verb == "lower" and not here else f"{verb} {path} (now {'null' if here is None else here})"
