"""Rubrics are data: a judge prompt, its range and the form of its verdict in one YAML file.

``judge.rubric=additive`` finds ``rubric/additive.yaml`` on the config search path (``conf/`` and the folders that
plugins add); a path to a YAML file works as well, and so does one prompt of a file of published ones
(:mod:`selfreward.core.text.judge_prompts`): ``judge.rubric=FILE.jsonl:NAME``.

A template shows what there is to judge in one of two ways::

    whole          {instruction}, {response}, {reference}: a conversation before its last answer stands in
                   {instruction}, written out
    turn by turn   {instruction_1}, {response_1}, {instruction_2}, {response_2}, {reference_2}, ...: conversations of
                   exactly that many user turns; the last answer is the one that is judged

A rubric that compares has {response_a} and {response_b} (or {response_a_1}, ...) in place of {response}, and asks for
its verdict with {winner} in place of {score}.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from selfreward.core.errors import UserError
from selfreward.core.text.judge_prompts import is_collection, published_prompt, split_name
from selfreward.core.text.messages import Message
from selfreward.core.text.verdict import read_choice, read_score

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_KNOWN = re.compile(r"(instruction|response|response_a|response_b|reference)(?:_([1-9]))?")
_TEXTS = ("name", "source", "system", "template", "verdict", "reply_prefix")
_NUMBERS = ("low", "high")
_NEEDED = ("name", "source", "template")
_KEYS = (*_TEXTS, *_NUMBERS, "choices")
_WORTH = (1.0, 0.0, 0.5)


@dataclass(frozen=True)
class Rubric:
    """A judge prompt.

    Texts are put into the template in one pass: text that came from data is never looked at for placeholders again, so
    an answer that contains ``{instruction}`` stays as it is.
    """

    name: str
    source: str
    template: str
    low: float = 0
    """Lowest score. The range of a comparison is 0 (the second answer is better) to 1 (the first is), 0.5 for a tie."""
    high: float = 1
    verdict: str = "Score: {score}"
    reply_prefix: str = ""
    """Text the judge's reply is made to start with (a prefill); empty for chat models that follow instructions."""
    system: str = ""
    """The system turn before the template's user turn; empty for none."""
    choices: tuple[str, ...] = ("A", "B", "C")
    """What {winner} may be: the first answer, the second one, and a tie where the rubric allows one."""

    @classmethod
    def load(cls, name: str, folders: Sequence[Path] = ()) -> Rubric:
        """The rubric of that name, of that path to a ``.yaml`` file, or ``FILE.jsonl:NAME``.

        Raises:
            UserError: no such rubric, or a file that is not a rubric; says what is wrong with it.
        """
        path = find_rubric(name, folders)
        if is_collection(path):
            values, where = published_prompt(path, split_name(name)[1]), name
        else:
            values, where = _yaml(path), str(path)
        problems = _problems(values)
        if problems:
            raise UserError([f"rubric {where}: {p}" for p in problems])
        return cls(**_values(values))

    @staticmethod
    def file(name: str) -> Path:
        """The file that :meth:`load` reads."""
        return find_rubric(name)

    @property
    def compares(self) -> bool:
        """Whether it compares two answers; other rubrics score one."""
        return "{winner}" in self.verdict

    @cached_property
    def turns(self) -> int:
        """User turns that a conversation must have; 0 where the template shows it whole, however long it is."""
        return max((int(found[2] or 0) for found in self._known), default=0)

    @cached_property
    def needs_reference(self) -> bool:
        """Whether the template shows the judge a good answer to compare with."""
        return any(found[1] == "reference" for found in self._known)

    @property
    def _known(self) -> list[re.Match[str]]:
        return [found for name in _PLACEHOLDER.findall(self.template) if (found := _KNOWN.fullmatch(name))]

    def messages(
        self, dialogue: Sequence[Message], other: Sequence[Message] = (), references: Sequence[str] = ()
    ) -> list[Message]:
        """The conversation that asks a judge for its verdict.

        Args:
            dialogue: what was asked, and last the answer that is judged; the first answer of a comparison.
            other: the same with the second answer of a comparison; its earlier answers may differ, too.
            references: a good answer to each user turn, or to the last one alone.

        Raises:
            UserError: the rubric asks for something else: two answers, a reference, another number of turns.
        """
        if misfit := self.misfit(dialogue, other, references):
            raise UserError(f"rubric {self.name} {misfit}")
        sides = {"response_a": dialogue, "response_b": other} if self.compares else {"response": dialogue}
        values = {name: shown[-1]["content"] for name, shown in sides.items()}
        values["instruction"] = written_out(dialogue[:-1])
        values["reference"] = references[-1] if references else ""
        if self.turns:
            values |= _numbered("instruction", _questions(dialogue)) | _numbered("reference", references)
            for name, shown in sides.items():
                values |= _numbered(name, [turn["content"] for turn in shown if turn["role"] == "assistant"])
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.render(**values)}]

    def misfit(self, dialogue: Sequence[Message], other: Sequence[Message] = (), references: Sequence[str] = ()) -> str:
        """Why :meth:`messages` would refuse; empty where it would not."""
        if self.compares != bool(other):
            return "compares two answers" if self.compares else "scores one answer"
        if self.needs_reference and not references:
            return "wants a reference answer, and this prompt has none"
        shown = [[turn["role"] for turn in side if turn["role"] != "system"] for side in (dialogue, other or dialogue)]
        if self.turns and shown != [["user", "assistant"] * self.turns] * 2:
            return f"is for conversations of {self.turns} user turns, each with its answer"
        if self.turns and self.needs_reference and len(references) != self.turns:
            return f"wants a reference answer to each of the {self.turns} user turns"
        return ""

    def render(self, **values: str) -> str:
        """The template with these texts in place of their placeholders, in a single pass; others stay."""
        return _PLACEHOLDER.sub(lambda m: values[m[1]] if m[1] in values else m[0], self.template)

    def read(self, text: str, cut_off: bool = False) -> float | None:
        """The score in the judge's own new text, or None (:func:`selfreward.read_score`).

        Of a comparison: 1 where the first answer is better, 0 where the second is, 0.5 for a tie. Where the token limit
        cut the text off (``cut_off``), what stands at its very end is no verdict: ``Score: 1`` may have become
        ``Score: 10``, and ``Winner: A`` may have become ``Winner: A or B``.
        """
        if not self.compares:
            is_cut = cut_off and text.endswith(tuple("0123456789./"))
            return None if is_cut else read_score(text, self.verdict, self.low, self.high)
        choice = read_choice(text + " …" if cut_off else text, self.verdict, self.choices)
        return None if choice is None else _WORTH[self.choices.index(choice)]


def written_out(conversation: Sequence[Message]) -> str:
    """What a judge is shown as the instruction.

    A single user turn stands as it is. A longer conversation is written out, one paragraph per turn, ``User: ...``,
    ``Assistant: ...`` (``System: ...``), and the response that is judged answers its last turn.
    """
    if len(conversation) == 1:
        return conversation[0]["content"]
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in conversation)


def own_folders() -> Sequence[Path]:
    """The folder of the rubrics that this package ships."""
    return [Path(str(files("selfreward.conf"))) / "rubric"]


_folders: Callable[[], Sequence[Path]] = own_folders


def look_up_in(folders: Callable[[], Sequence[Path]]) -> None:
    """Say where names are looked up from now on: said once, by the registry, which knows the folders plugins add."""
    global _folders
    _folders = folders


def find_rubric(name: str, folders: Sequence[Path] = ()) -> Path:
    """The file of a rubric: a path that ends in .yaml or .jsonl:NAME, or a name looked up in the folders."""
    file = Path(split_name(name)[0])
    if file.suffix in (".yaml", ".yml") or is_collection(file):
        if not file.is_file():
            raise UserError(f"judge.rubric={name}: no such file")
        return file
    folders = folders or _folders()
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    raise UserError(
        f"judge.rubric={name}: no such rubric; there are {', '.join(known) or 'none'}, or give the path of a .yaml file"
    )


def _questions(dialogue: Sequence[Message]) -> list[str]:
    """The user turns; a system turn is part of the first one."""
    first = next(k for k, turn in enumerate(dialogue) if turn["role"] == "user")
    later = [turn["content"] for turn in dialogue[first + 1 :] if turn["role"] == "user"]
    return [written_out(dialogue[: first + 1]), *later]


def _numbered(name: str, texts: Sequence[str]) -> dict[str, str]:
    return {f"{name}_{number}": text for number, text in enumerate(texts, start=1)}


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except Exception as problem:  # PyYAML lets IndexError and more escape, for example for "!!int ''"
        raise UserError(f"rubric {path}: not readable as YAML: {problem}") from None


def _values(values: dict[str, Any]) -> dict[str, Any]:
    return values | ({"choices": tuple(values["choices"])} if "choices" in values else {})


def _problems(values: object) -> list[str]:
    if not isinstance(values, dict):
        return ["must be a mapping with name, source, template, low, high"]
    compares = "{winner}" in str(values.get("verdict"))
    needed = _NEEDED if compares else (*_NEEDED, *_NUMBERS)
    found = [f"unknown key {k!r} (known: {', '.join(_KEYS)})" for k in values if k not in _KEYS]
    found += [f"key {k!r} is missing" for k in needed if k not in values]
    found += [f"{k!r} must be text" for k in _TEXTS if not isinstance(values.get(k, ""), str)]
    found += [f"{k!r} must be a number" for k in _NUMBERS if type(values.get(k, 0)) not in (int, float)]
    found += [f"{k!r} is for rubrics with a {{score}}" for k in _NUMBERS if compares and k in values]
    if "choices" in values:
        found += _bad_choices(values["choices"], compares)
    return found or list(_misfits(Rubric(**_values(values))))


def _bad_choices(choices: object, compares: bool) -> Iterator[str]:
    words = choices if isinstance(choices, list) else []
    are_words = all(isinstance(word, str) and re.fullmatch(r"\w+", word) for word in words)
    if not compares:
        yield "'choices' is for rubrics with a {winner}"
    elif not are_words or len(words) not in (2, 3) or len(set(words)) < len(words):
        yield f"'choices' must be two or three different words: first answer, second answer, tie; got {choices!r}"


def _misfits(rubric: Rubric) -> Iterator[str]:
    if not 0 <= rubric.low < rubric.high < math.inf:  # a verdict's number has no sign
        yield f"low and high must be numbers with 0 <= low < high, got {rubric.low} and {rubric.high}"
    mark = "{winner}" if rubric.compares else "{score}"
    key, *tails = rubric.verdict.split(mark)
    if len(tails) != 1 or not key.strip():
        yield f"verdict must hold {mark} once, with a word or sign before it, got {rubric.verdict!r}"
    answers = ("response_a", "response_b") if rubric.compares else ("response",)
    last = f"_{rubric.turns}" if rubric.turns else ""
    for name in filter(_KNOWN.fullmatch, _PLACEHOLDER.findall(rubric.system)):
        yield f"system holds {{{name}}}, and only the template is filled in"
    names = _PLACEHOLDER.findall(rubric.template)
    for name in ("instruction", *answers):
        if f"{name}{last}" not in names:
            yield f"template must hold {{{name}{last}}}"
    for name in dict.fromkeys(names):
        known = _KNOWN.fullmatch(name)
        if known is None or known[1] not in ("instruction", "reference", *answers):
            shown = ", ".join(("instruction", *answers, "reference"))
            yield f"template holds {{{name}}}, which is not one of {shown}, nor one of them with _1, _2, ... behind it"
        elif bool(known[2]) != bool(rubric.turns):
            yield f"template holds {{{name}}} beside {{instruction{last}}}: number all placeholders by turn, or none"
