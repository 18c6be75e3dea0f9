"""Files of published judge prompts, one JSON object per line, in the layout of FastChat's ``judge_prompts.jsonl``.

``name``, ``type`` (``single`` or ``pairwise``), ``system_prompt``, ``prompt_template``, and ``output_format``:
``[[rating]]`` (1 to 10) or ``[[A]]`` (``[[B]]``, and ``[[C]]`` for a tie). Their placeholders mean::

    {question}, {answer}, {answer_a}, {answer_b}, {ref_answer_1}          the whole of a single turn
    {question_1}, {answer_1}, {answer_a_1}, {answer_b_1}, {ref_answer_1}  turn by turn, where there is a {question_1}

Source: arXiv:2306.05685, appendix A; the MT-Bench prompts of FastChat (Apache-2.0).
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from selfreward.core.errors import UserError
from selfreward.formats import json_rows

LOW, HIGH = 1, 10
"""The range of ``[[rating]]``: the file does not say it, its prompts do."""
_VERDICTS = {("single", "[[rating]]"): "[[{score}]]", ("pairwise", "[[A]]"): "[[{winner}]]"}
_OURS = {"question": "instruction", "answer": "response", "ref_answer": "reference"}
_THEIRS = re.compile(r"\{(question|answer|ref_answer)(_[ab])?(_[1-9])?\}")
_KEYS = ("name", "type", "system_prompt", "prompt_template", "output_format")


def split_name(rubric: str) -> tuple[str, str]:
    """``FILE.jsonl:NAME`` (or ``#``, which a shell and Hydra want quoted) as file and name; other texts whole."""
    found = re.fullmatch(r"(.+\.jsonl)[:#](.*)", rubric, re.DOTALL)
    return (found[1], found[2]) if found else (rubric, "")


def is_collection(path: Path) -> bool:
    """Whether the file holds several prompts."""
    return path.suffix == ".jsonl"


def published_prompt(path: Path, name: str) -> dict[str, Any]:
    """The prompt of that name, as the keys of a rubric.

    Raises:
        UserError: the file is none of judge prompts, or has no prompt of that name.
    """
    prompts: dict[str, tuple[str, dict[str, Any]]] = {}
    for place, row in _rows(path):
        prompts.setdefault(str(row.get("name")), (place, row))
    if name not in prompts:
        close = difflib.get_close_matches(name, prompts, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(prompts) or 'none'}"
        what = "the file has no prompt of this name" if name else "which of its prompts? judge.rubric=FILE.jsonl:NAME"
        raise UserError(f"judge.rubric={path}{':' if name else ''}{name}: {what}; {hint}")
    place, row = prompts[name]
    if wrong := [key for key in _KEYS if not isinstance(row.get(key), str)]:
        raise UserError(f"{place}: a judge prompt has the texts {', '.join(_KEYS)}; see {wrong[0]!r}")
    verdict = _VERDICTS.get((row["type"], row["output_format"]))
    if verdict is None:
        known = " or ".join(f"{kind} with {form}" for kind, form in _VERDICTS)
        said = f"{row['type']} with {row['output_format']}"
        raise UserError(f"{place}: type and output_format must be {known}, got {said}")
    return {
        "name": name,
        "source": f"{path.name}: {row.get('description') or name}",
        "system": row["system_prompt"].strip(),
        "template": _with_our_names(row["prompt_template"]),
        "verdict": verdict,
        **({"low": LOW, "high": HIGH} if row["type"] == "single" else {}),
    }


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The prompts, each with its place. One bad line is the whole file's fault: it may be the one that is asked for."""
    refused: list[str] = []
    try:
        with path.open("rb") as file:
            found = list(json_rows.rows(str(path), file, refused))
    except OSError as problem:
        raise UserError(f"rubric {path}: cannot be read: {problem}") from None
    if refused:
        raise UserError(refused[0])
    return found


def _with_our_names(template: str) -> str:
    """Their placeholders by our names; what is none of theirs stays, and is refused with the rubric's other faults."""
    by_turn = "{question_1}" in template

    def ours(found: re.Match[str]) -> str:
        name, side, turn = found.groups(default="")
        return f"{{{_OURS[name]}{side}{turn if by_turn else ''}}}"

    return _THEIRS.sub(ours, template)
