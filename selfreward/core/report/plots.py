"""The report's plots: Matplotlib draws them, and they become inline SVG that follows the page's light or dark colours.

Each colour is drawn as a stand-in and replaced by a CSS variable; inline styles, which the page's policy forbids,
become attributes. Nothing depends on the day, on the user's Matplotlib settings, or on fonts that are not its own.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from selfreward.core.report.figures import SHARES, label, number
from selfreward.core.report.run_folder import STAGES, RoundFolder, RunFolder
from selfreward.core.report.sample import column_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, QUIET, PAPER = "#010101", "#010102", "#010103"
SERIES = ("#010110", "#010111", "#010112", "#010113", "#010114")
WIN, TIE, LOSE = SERIES[1], "#010120", SERIES[2]
_VARIABLES = {INK: "--ink", QUIET: "--quiet", PAPER: "--card", TIE: "--tie"}
_VARIABLES |= {colour: f"--series-{i}" for i, colour in enumerate(SERIES, 1)}
_SVG = "{http://www.w3.org/2000/svg}"
_SIZE = (3.7, 2.3)

STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": QUIET,
    "axes.labelcolor": QUIET,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 2.5,
    "text.color": INK,
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@dataclass(frozen=True)
class Plot:
    """One figure of the report."""

    title: str
    note: str
    svg: str


@dataclass(frozen=True)
class _Drawing:
    title: str
    note: str
    said: str
    """The same in words, for who cannot see it."""
    draw: Callable[[Axes], None]
    size: tuple[float, float] = _SIZE


def plots(run: RunFolder) -> list[Plot]:
    """The plots for which the run has figures."""
    import matplotlib

    drawings = [*_models(run), *_histograms(run), *_curves(run), *_costs(run)]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        return [Plot(d.title, d.note, _svg(d)) for d in drawings]


# ---------------------------------------------------------------------------------------------------- model by model


def _models(run: RunFolder) -> Iterator[_Drawing]:
    oracle, judge = "oracle", "judge_agreement"
    agreement = ("pairwise_accuracy", "spearman", "kendall_tau", "exact_match")
    yield from _lines(run, "True score", "Mean of the data's ground truth", [(oracle, "true_score")])
    yield from _lines(
        run, "Fully correct, fluent", "Share of the answers", [(oracle, "fully_correct"), (oracle, "fluent")]
    )
    yield from _outcomes(run)
    yield from _lines(run, "Elo rating", "All models of the run on one scale", [("elo", "rating")])
    yield from _lines(
        run, "Judge agreement", "The model's verdicts against the reference", [(judge, a) for a in agreement]
    )
    yield from _lines(run, "Answer length", "Characters, mean over held-out prompts", [("loop", "response_length")])
    yield from _lines(
        run,
        "Verdicts that could be read",
        "Share of the votes",
        [("loop", "judge_parse_rate"), (judge, "parse_rate")],
        ["in training", "in evaluation"],
    )
    yield from _lines(run, "Training rows per prompt", "Pair yield of the round", [("loop", "pair_yield")])


def _lines(
    run: RunFolder, title: str, note: str, keys: Sequence[tuple[str, str]], names: Sequence[str] = ()
) -> Iterator[_Drawing]:
    """One line a figure over the models that have it, with 95 % intervals as bars."""
    series = [
        (name or label(*key), key[1], run.values(*key)) for key, name in zip(keys, names or [""] * 9, strict=False)
    ]
    series = [each for each in series if each[2]]
    if not series:
        return
    models = [m for m in run.models if any(v["model"] == m for _, _, values in series for v in values)]

    def draw(ax: Axes) -> None:
        for i, (name, _, values) in enumerate(series):
            nudge = (i - (len(series) - 1) / 2) * 0.08  # intervals side by side
            x = [models.index(v["model"]) + nudge for v in values]
            y = [v["value"] for v in values]
            bars = [[max(0.0, abs(v["value"] - (v[end] if v[end] is not None else v["value"]))) for v in values]
                    for end in ("low", "high")]  # fmt: skip
            ax.errorbar(x, y, bars, color=SERIES[i], lw=1.6, elinewidth=1, capsize=2.5, marker="o", ms=4, label=name)
        _models_across(ax, models)
        _upright(ax, {metric for _, metric, _ in series})
        if len(series) > 1:
            _legend(ax, 2 if len(series) > 3 else len(series))

    told = "; ".join(
        f"{name}: " + ", ".join(f"{v['model']} {number(v['value'], metric)}" for v in values)
        for name, metric, values in series
    )
    interval = any(v["low"] is not None for _, _, values in series for v in values)
    yield _Drawing(title, note + (", with 95 % intervals" if interval else ""), told, draw)


def _outcomes(run: RunFolder) -> Iterator[_Drawing]:
    """Win, tie and lose as parts of one bar."""
    outcomes = {
        name: {v["model"]: v["value"] for v in run.values("head_to_head", name)} for name in ("win", "tie", "lose")
    }
    models = [model for model in run.models if any(model in values for values in outcomes.values())]
    if not models:
        return

    def draw(ax: Axes) -> None:
        left = [0.0] * len(models)
        for (name, values), colour in zip(outcomes.items(), (WIN, TIE, LOSE), strict=True):
            widths = [values.get(model, 0.0) for model in models]
            ax.barh(range(len(models)), widths, left=left, color=colour, height=0.55, label=name)
            for y, (start, width) in enumerate(zip(left, widths, strict=True)):
                if width >= 0.08:
                    ink = INK if colour == TIE else PAPER
                    ax.text(start + width / 2, y, f"{width:.0%}", ha="center", va="center", color=ink, fontsize=8)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        ax.set_yticks(range(len(models)), models)
        ax.invert_yaxis()
        ax.set_xlim(0, 1)
        ax.xaxis.set_visible(False)
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)
        _legend(ax, 3)

    told = "; ".join(
        f"{model}: " + ", ".join(f"{name} {values[model]:.0%}" for name, values in outcomes.items() if model in values)
        for model in models
    )
    yield _Drawing("Win, tie, lose", "Against the model before, on held-out prompts", told, draw)


# ---------------------------------------------------------------------------------------------------- round by round


def _histograms(run: RunFolder) -> Iterator[_Drawing]:
    """The judge's scores in each iteration, two passes over one column, a shard at a time."""
    import numpy as np

    rounds = [round for round in run.rounds if round.name.startswith("iter-") and round.shards("judgements")]
    spans = [span for round in rounds for scores in _scores(round) for span in (scores.min(), scores.max())]
    if not spans:
        return
    edges = _edges(float(min(spans)), float(max(spans)))
    none = np.zeros(len(edges) - 1)
    counts = {round.name: sum((np.histogram(s, edges)[0] for s in _scores(round)), none) for round in rounds}
    shares = {name: each / each.sum() for name, each in counts.items() if each.sum()}
    centres = (edges[:-1] + edges[1:]) / 2

    def draw(ax: Axes) -> None:
        top = max(float(share.max()) for share in shares.values())
        for i, share in enumerate(shares.values()):
            heights = share / top * 0.82
            ax.bar(centres, heights, bottom=-i, width=np.diff(edges) * 0.86, color=SERIES[0])
            ax.axhline(-i, color=QUIET, lw=0.6)
            peak = int(share.argmax())
            ax.text(
                centres[peak], heights[peak] - i + 0.03, f"{share[peak]:.0%}", ha="center", fontsize=7.5, color=QUIET
            )
        ax.set_yticks([0.3 - i for i in range(len(shares))], list(shares))
        ax.set_ylim(-len(shares) + 0.95, 1.0)
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)

    told = "; ".join(f"{name}: most often {centres[int(s.argmax())]:g} ({s.max():.0%})" for name, s in shares.items())
    height = max(_SIZE[1], 0.75 * len(shares) + 0.6)
    yield _Drawing("The judge's scores", _unscored(rounds), told, draw, (_SIZE[0], height))


def _scores(round: RoundFolder) -> Iterator[Any]:
    """The scores of one shard after the other; shards without any are passed over."""
    for path in round.shards("judgements"):
        scores = column_table(path, ["score"])["score"].drop_null().to_numpy()
        if len(scores):
            yield scores


def _edges(low: float, high: float) -> Any:
    """Bins around the halves of a rubric's points; twenty equal ones where the scores span more."""
    import numpy as np

    if high - low > 10:
        return np.linspace(low, high, 21)
    return np.arange(math.floor(low) - 0.25, math.ceil(high) + 0.5, 0.5)


def _unscored(rounds: Sequence[RoundFolder]) -> str:
    answers = sum(round.figures("judgements").get("rows", 0) for round in rounds)
    without = sum(round.figures("judgements").get("unscored", 0) for round in rounds)
    return f"Share of the scored answers by score; {without:,.0f} of {answers:,.0f} have none"


def _curves(run: RunFolder) -> Iterator[_Drawing]:
    """What an online optimizer was paid, and how far it went from its reference: a line a round, over its log."""
    for figure, title, note in (
        ("reward", "Reward while it trains", "The judge's mean score of the answers of each batch"),
        ("kl", "Distance while it trains", "KL to the reference, nats an answer, of each batch"),
    ):
        logs = {round.name: [log[figure] for log in round.log if log.get(figure) is not None] for round in run.rounds}
        known = {name: values for name, values in logs.items() if values}
        if known:
            yield _curve(title, note, known)


def _curve(title: str, note: str, series: Mapping[str, Sequence[float]]) -> _Drawing:
    def draw(ax: Axes) -> None:
        for i, (name, values) in enumerate(series.items()):
            ax.plot(range(1, len(values) + 1), values, color=SERIES[i % len(SERIES)], lw=1.6, label=name)
        ax.margins(x=0.02, y=0.15)
        ax.grid(axis="y", color=QUIET, alpha=0.22, lw=0.6)
        if len(series) > 1:
            _legend(ax, min(3, len(series)))

    told = "; ".join(f"{name}: from {v[0]:.3g} to {v[-1]:.3g} in {len(v)} batches" for name, v in series.items())
    return _Drawing(title, note, told, draw)


def _costs(run: RunFolder) -> Iterator[_Drawing]:
    yield from _stacked(run, "Seconds", "seconds", "By round and stage; reused stages count what they once took")
    yield from _stacked(run, "Tokens written", "new_tokens", "By round and stage")


def _stacked(run: RunFolder, title: str, figure: str, note: str) -> Iterator[_Drawing]:
    """A bar a round, made of its stages."""
    rounds = [round for round in run.rounds if any(round.figures(stage).get(figure) for stage in STAGES)]
    parts = {stage: [round.figures(stage).get(figure, 0.0) for round in rounds] for stage in STAGES}
    total = sum(map(sum, parts.values()))
    parts = {stage: values for stage, values in parts.items() if max(values, default=0.0) > 0.002 * total}
    if not parts:
        return

    def draw(ax: Axes) -> None:
        left = [0.0] * len(rounds)
        for stage, values in parts.items():
            colour = SERIES[list(STAGES).index(stage)]
            ax.barh(range(len(values)), values, left=left, color=colour, height=0.55, label=stage.replace("_", " "))
            left = [a + b for a, b in zip(left, values, strict=True)]
        for y, whole in enumerate(left):
            total = f"{whole:,.0f}"
            ax.annotate(total, (whole, y), (4, 0), textcoords="offset points", va="center", color=QUIET, fontsize=8)
        ax.set_yticks(range(len(rounds)), [round.name for round in rounds])
        ax.set_ylim(max(len(rounds), 4) - 0.5, -0.5)
        ax.set_xlim(0, max(left) * 1.16)
        ax.xaxis.set_visible(False)
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)
        _legend(ax, 3)

    told = "; ".join(
        f"{round.name}: " + ", ".join(f"{stage.replace('_', ' ')} {values[i]:,.0f}" for stage, values in parts.items())
        for i, round in enumerate(rounds)
    )
    yield _Drawing(title, note, told, draw, (_SIZE[0], max(_SIZE[1], 0.36 * len(rounds) + 0.9)))


# --------------------------------------------------------------------------------------------------------- the drawing


def _models_across(ax: Axes, models: Sequence[str]) -> None:
    ax.set_xticks(range(len(models)), models)
    ax.set_xlim(-0.4, len(models) - 0.6)
    ax.margins(y=0.15)
    ax.grid(axis="y", color=QUIET, alpha=0.22, lw=0.6)


def _upright(ax: Axes, metrics: set[str]) -> None:
    """Shares from 0 to 100 % and lengths from 0, so that a small change looks small."""
    if metrics <= SHARES:
        from matplotlib.ticker import PercentFormatter

        ax.set_ylim(0, max(1.05, ax.get_ylim()[1]))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    elif "response_length" in metrics:
        ax.set_ylim(bottom=0)


def _legend(ax: Axes, columns: int) -> None:
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=1.1,
              columnspacing=1.2, handletextpad=0.5)  # fmt: skip


def _svg(drawing: _Drawing) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=drawing.size, layout="constrained")
    drawing.draw(figure.add_subplot())
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": drawing.title}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return inline(out.getvalue(), f"{drawing.title}. {drawing.said}")


def inline(svg: str, said: str) -> str:
    """Matplotlib's SVG as a part of a page: no styles, no names that could clash, the page's colours.

    Args:
        svg: the document that Matplotlib wrote.
        said: what it shows, in words.
    """
    ElementTree.register_namespace("", _SVG.strip("{}"))
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style", "title"):
                parent.remove(child)
    used = set(re.findall(r"#([\w-]+)", " ".join(v for e in root.iter() for k, v in e.attrib.items() if k != "id")))
    for element in root.iter():
        _plain_attributes(element, used)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", said)
    return ElementTree.tostring(root, encoding="unicode")


def _plain_attributes(element: ElementTree.Element, used: set[str]) -> None:
    attributes = element.attrib
    if attributes.get("id") not in used:
        attributes.pop("id", None)
    for name in [name for name in attributes if name.startswith("{")]:
        attributes[name.rpartition("}")[2]] = attributes.pop(name)
    for part in filter(None, map(str.strip, attributes.pop("style", "").split(";"))):
        name, _, value = (text.strip() for text in part.partition(":"))
        if name == "font":
            name, value = "font-size", re.search(r"[\d.]+px", value).group()  # type: ignore[union-attr]
        attributes[name] = f"var({_VARIABLES[value]})" if value in _VARIABLES else value
    if element.tag == f"{_SVG}text" and "fill" not in attributes:
        attributes["fill"] = "var(--ink)"
