"""The report's plots: Matplotlib draws them, and they become inline SVG that follows the page's light or dark colours.

Each colour is drawn as a stand-in and replaced by a CSS variable; inline styles, which the page's policy forbids,
become attributes. Nothing depends on the day, on the user's Matplotlib settings, or on fonts that are not its own.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from selfreward.core.contracts.evaluation import Figure, Plot
from selfreward.core.report.figures import number
from selfreward.core.report.run_folder import RoundFolder, RunFolder
from selfreward.core.report.sample import column_table
from selfreward.core.run.figures import OWN, figure_source, sources
from selfreward.core.store.artifacts import STAGE_FOLDERS

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
class Drawn:
    """A plot as it stands in the page."""

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


class _Series(NamedTuple):
    name: str
    figure: Figure
    values: list[dict[str, Any]]
    """The metric's records, one a model."""


def plots(run: RunFolder) -> list[Drawn]:
    """The plots for which the run has figures."""
    import matplotlib

    drawings = [*_models(run), *_histograms(run), *_curves(run), *_costs(run)]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        return [Drawn(d.title, d.note, _svg(d)) for d in drawings]


# ---------------------------------------------------------------------------------------------------- model by model


def _models(run: RunFolder) -> Iterator[_Drawing]:
    """What evaluators and the loop declare; a plot of both stands among the loop's, and the loop's lines come first."""
    declared: dict[str, list[tuple[str, Plot]]] = {}
    for evaluator in dict.fromkeys([*OWN, *sources()]):
        for plot in figure_source(evaluator).plots:
            declared.setdefault(plot.title, []).append((evaluator, plot))
    for title in sorted(declared, key=lambda title: declared[title][0][0] in OWN):
        parts = declared[title]
        series = [each for evaluator, plot in parts for each in _series(run, evaluator, plot)]
        if series:
            models = [m for m in run.models if any(m == value["model"] for each in series for value in each.values)]
            yield (_bars if parts[0][1].stacked else _lines)(parts[0][1], models, series)


def _series(run: RunFolder, evaluator: str, plot: Plot) -> Iterator[_Series]:
    """The metrics of a plot that have values."""
    for metric, name in zip_longest(plot.metrics, plot.names):
        figure = figure_source(evaluator).figure(metric)
        if values := run.values(evaluator, metric):
            yield _Series(name or figure.words, figure, values)


def _lines(plot: Plot, models: Sequence[str], series: Sequence[_Series]) -> _Drawing:
    """One line a figure over the models that have it, with 95 % intervals as bars."""

    def draw(ax: Axes) -> None:
        for i, (name, _, values) in enumerate(series):
            nudge = (i - (len(series) - 1) / 2) * 0.08  # intervals side by side
            x = [models.index(v["model"]) + nudge for v in values]
            y = [v["value"] for v in values]
            bars = [[max(0.0, abs(v["value"] - (v[end] if v[end] is not None else v["value"]))) for v in values]
                    for end in ("low", "high")]  # fmt: skip
            colour = SERIES[i % len(SERIES)]
            ax.errorbar(x, y, bars, color=colour, lw=1.6, elinewidth=1, capsize=2.5, marker="o", ms=4, label=name)
        _models_across(ax, models)
        if all(figure.share for _, figure, _ in series):
            _in_percent(ax)
        elif plot.from_zero:
            ax.set_ylim(bottom=0)
        if len(series) > 1:
            _legend(ax, 2 if len(series) > 3 else len(series))

    said = "; ".join(
        f"{name}: " + ", ".join(f"{v['model']} {number(v['value'], figure)}" for v in values)
        for name, figure, values in series
    )
    interval = any(v["low"] is not None for _, _, values in series for v in values)
    return _Drawing(plot.title, plot.note + (", with 95 % intervals" if interval else ""), said, draw)


def _bars(plot: Plot, models: Sequence[str], series: Sequence[_Series]) -> _Drawing:
    """Shares as the parts of one bar a model."""
    parts = [(name, figure.better, {v["model"]: v["value"] for v in values}) for name, figure, values in series]

    def draw(ax: Axes) -> None:
        colours = [{"higher": WIN, "lower": LOSE}.get(better, TIE) for _, better, _ in parts]
        widths = [[values.get(model, 0.0) for model in models] for _, _, values in parts]
        _stack(ax, models, zip([name for name, _, _ in parts], colours, widths, strict=True))
        for k, (colour, part) in enumerate(zip(colours, widths, strict=True)):
            for y, width in enumerate(part):
                middle = sum(earlier[y] for earlier in widths[:k]) + width / 2
                if width >= 0.08:
                    ink = INK if colour == TIE else PAPER
                    ax.text(middle, y, f"{width:.0%}", ha="center", va="center", color=ink, fontsize=8)
        ax.invert_yaxis()
        ax.set_xlim(0, 1)

    said = "; ".join(
        f"{model}: " + ", ".join(f"{name} {values[model]:.0%}" for name, _, values in parts if model in values)
        for model in models
    )
    return _Drawing(plot.title, plot.note, said, draw)


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

    said = "; ".join(f"{name}: most often {centres[int(s.argmax())]:g} ({s.max():.0%})" for name, s in shares.items())
    height = max(_SIZE[1], 0.75 * len(shares) + 0.6)
    yield _Drawing("The judge's scores", _unscored(rounds), said, draw, (_SIZE[0], height))


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

    said = "; ".join(f"{name}: from {v[0]:.3g} to {v[-1]:.3g} in {len(v)} batches" for name, v in series.items())
    return _Drawing(title, note, said, draw)


def _costs(run: RunFolder) -> Iterator[_Drawing]:
    yield from _stacked(run, "Seconds", "seconds", "By round and stage; reused stages count what they once took")
    yield from _stacked(run, "Tokens written", "new_tokens", "By round and stage")


def _stacked(run: RunFolder, title: str, figure: str, note: str) -> Iterator[_Drawing]:
    """A bar a round, made of its stages."""
    rounds = [round for round in run.rounds if any(round.figures(stage).get(figure) for stage in STAGE_FOLDERS)]
    parts = {stage: [round.figures(stage).get(figure, 0.0) for round in rounds] for stage in STAGE_FOLDERS}
    total = sum(map(sum, parts.values()))
    parts = {stage: values for stage, values in parts.items() if max(values, default=0.0) > 0.002 * total}
    if not parts:
        return

    def draw(ax: Axes) -> None:
        colours = dict(zip(STAGE_FOLDERS, SERIES, strict=True))
        bars = ((stage.replace("_", " "), colours[stage], values) for stage, values in parts.items())
        _stack(ax, [round.name for round in rounds], bars)
        wholes = [sum(values) for values in zip(*parts.values(), strict=True)]
        for y, whole in enumerate(wholes):
            total = f"{whole:,.0f}"
            ax.annotate(total, (whole, y), (4, 0), textcoords="offset points", va="center", color=QUIET, fontsize=8)
        ax.set_ylim(max(len(rounds), 4) - 0.5, -0.5)
        ax.set_xlim(0, max(wholes) * 1.16)

    said = "; ".join(
        f"{round.name}: " + ", ".join(f"{stage.replace('_', ' ')} {values[i]:,.0f}" for stage, values in parts.items())
        for i, round in enumerate(rounds)
    )
    yield _Drawing(title, note, said, draw, (_SIZE[0], max(_SIZE[1], 0.36 * len(rounds) + 0.9)))


# --------------------------------------------------------------------------------------------------------- the drawing


def _models_across(ax: Axes, models: Sequence[str]) -> None:
    ax.set_xticks(range(len(models)), models)
    ax.set_xlim(-0.4, len(models) - 0.6)
    ax.margins(y=0.15)
    ax.grid(axis="y", color=QUIET, alpha=0.22, lw=0.6)


def _in_percent(ax: Axes) -> None:
    """Shares from 0 to 100 %, so that a small change looks small."""
    from matplotlib.ticker import PercentFormatter

    ax.set_ylim(0, max(1.05, ax.get_ylim()[1]))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _stack(ax: Axes, rows: Sequence[str], parts: Iterable[tuple[str, str, Sequence[float]]]) -> None:
    """A bar a row, made of its parts: name, colour, and a width for each row."""
    left = [0.0] * len(rows)
    for name, colour, widths in parts:
        ax.barh(range(len(rows)), widths, left=left, color=colour, height=0.55, label=name)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    ax.set_yticks(range(len(rows)), rows)
    ax.xaxis.set_visible(False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    _legend(ax, 3)


def _legend(ax: Axes, columns: int) -> None:
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=1.1,
              columnspacing=1.2, handletextpad=0.5)  # fmt: skip


def _svg(drawing: _Drawing) -> str:
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=drawing.size, layout="constrained")
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
