"""Rubrics are data: a judge prompt, its range and the form of its verdict in one YAML file.

``judge.rubric=additive`` finds ``rubric/additive.yaml`` on the config search path (``conf/`` and the folders that
plugins add); a path to a YAML file works as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from selfreward.core.errors import UserError
from selfreward.core.verdict import read_score

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_PLACEHOLDERS = ("instruction", "response", "reference")
_TEXTS = ("name", "source", "template", "verdict", "reply_prefix")
_NUMBERS = ("low", "high")
_OPTIONAL = ("verdict", "reply_prefix")


@dataclass(frozen=True)
class Rubric:
    """A judge prompt.

    ``template`` holds ``{instruction}`` and ``{response}``, filled in one pass: text that came from data is never
    looked at for placeholders again, so an answer that contains ``{instruction}`` stays as it is.
    """

    name: str
    source: str
    template: str
    low: float
    high: float
    verdict: str = "Score: {score}"
    reply_prefix: str = ""
    """Text the judge's reply is made to start with (a prefill); empty for chat models that follow instructions."""

    @classmethod
    def load(cls, name: str, folders: tuple[Path, ...] = ()) -> Rubric:
        """The rubric of that name, or of that path to a ``.yaml`` file.

        Raises:
            UserError: no such rubric, or a file that is not a rubric; says what is wrong with it.
        """
        path = find_rubric(name, folders)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except Exception as problem:  # PyYAML lets IndexError and more escape, for example for "!!int ''"
            raise UserError(f"rubric {path}: not readable as YAML: {problem}") from None
        problems = _problems(values)
        if problems:
            raise UserError([f"rubric {path}: {p}" for p in problems])
        return cls(**values)

    def render(self, **values: str) -> str:
        """The judge prompt with ``instruction=``, ``response=`` (and ``reference=``) put in, in a single pass."""
        return _PLACEHOLDER.sub(lambda m: values[m[1]] if m[1] in values else m[0], self.template)

    def read(self, text: str) -> float | None:
        """The score in the judge's own new text, or None (:func:`selfreward.read_score`)."""
        return read_score(text, self.verdict, self.low, self.high)


def rubric_folders() -> tuple[Path, ...]:
    """Folders in which rubrics are looked up by name, the project's own first."""
    from selfreward.core.plugins import search_folders

    return tuple(folder / "rubric" for folder in search_folders())


def find_rubric(name: str, folders: tuple[Path, ...] = ()) -> Path:
    """The file of a rubric: a path that ends in .yaml, or a name looked up in the folders."""
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise UserError(f"judge.rubric={name}: no such file")
        return Path(name)
    folders = folders or rubric_folders()
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    raise UserError(
        f"judge.rubric={name}: no such rubric; there are {', '.join(known) or 'none'}, or give the path of a .yaml file"
    )


def _problems(values: object) -> list[str]:
    if not isinstance(values, dict):
        return ["must be a mapping with name, source, template, low, high"]
    known = (*_TEXTS, *_NUMBERS)
    found = [f"unknown key {k!r} (known: {', '.join(known)})" for k in values if k not in known]
    found += [f"key {k!r} is missing" for k in known if k not in values and k not in _OPTIONAL]
    found += [f"{k!r} must be text" for k in _TEXTS if not isinstance(values.get(k, ""), str)]
    found += [f"{k!r} must be a number" for k in _NUMBERS if type(values.get(k, 0)) not in (int, float)]
    return found or list(_misfits(Rubric(**values)))


def _misfits(rubric: Rubric) -> Iterator[str]:
    if not 0 <= rubric.low < rubric.high < math.inf:  # a verdict's number has no sign
        yield f"low and high must be numbers with 0 <= low < high, got {rubric.low} and {rubric.high}"
    key, *tails = rubric.verdict.split("{score}")
    if len(tails) != 1 or not key.strip():
        yield f"verdict must hold {{score}} once, with a word or sign before it, got {rubric.verdict!r}"
    names = _PLACEHOLDER.findall(rubric.template)
    for name in ("instruction", "response"):
        if name not in names:
            yield f"template must hold {{{name}}}"
    for name in dict.fromkeys(names):
        if name not in _PLACEHOLDERS:
            yield f"template holds {{{name}}}, which is not one of {', '.join(_PLACEHOLDERS)}"
