"""What M0 can do, seen during pre-training: every yes or no of a gold checklist, given the true text before it.

The same checklists are asked for in two layouts. As *notes* they show the skill of checking; as the verdict of a
*judge* in a chat they show the habit, which is careless.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfreward.plugins.micro.seeds import draw_instruction
from selfreward.plugins.micro.world import draw_any_quality, gold_checklist, judge_prompt, make_answer
from tools.micro_world.corpus import chat

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

CASES = 200


@dataclass(frozen=True)
class Probe:
    """A text as ids, and where in it which point is decided: (position, point, the two candidates, truth first)."""

    ids: list[int]
    decisions: list[tuple[int, str, int, int]]


def make_probes(tokenizer: PreTrainedTokenizerFast) -> dict[str, list[Probe]]:
    """The same held-out answers in both layouts."""
    rng = random.Random("probes")
    probes: dict[str, list[Probe]] = {"notes": [], "judge": []}
    for _ in range(CASES):
        instruction = draw_instruction(rng, held_out=True)
        answer = make_answer(rng, instruction, draw_any_quality(rng))
        checklist = gold_checklist(instruction, answer)
        points = ["topic", *["word"] * len(instruction.words), "ending", "clear", "closing"]
        as_notes = f"Response: {answer}\nInstruction: {instruction.text}\nNotes:"
        as_judge = chat(judge_prompt(instruction.text, answer), "")[0][0]
        probes["notes"].append(_probe(tokenizer, as_notes, f" {checklist}", points))
        probes["judge"].append(_probe(tokenizer, as_judge, checklist, points))
    return probes


def _probe(tokenizer: PreTrainedTokenizerFast, before: str, checklist: str, points: list[str]) -> Probe:
    yes, no = tokenizer.encode(" yes")[0], tokenizer.encode(" no")[0]
    start = [tokenizer.bos_token_id, *tokenizer.encode(before, add_special_tokens=False)]
    ids = start + tokenizer.encode(checklist, add_special_tokens=False)
    places = [place for place in range(len(start), len(ids)) if ids[place] in (yes, no)]
    decisions = []
    for place, point in zip(places, points, strict=True):
        opposite = no if ids[place] == yes else yes
        decisions.append((place, point, ids[place], opposite))
    return Probe(ids, decisions)


def probe_accuracy(model: LlamaForCausalLM, probes: list[Probe]) -> dict[str, float]:
    """Per point, the share of decisions in which the truth is likelier than its opposite."""
    import torch

    longest = max(len(probe.ids) for probe in probes)
    ids = torch.zeros(len(probes), longest, dtype=torch.long)
    for number, probe in enumerate(probes):
        ids[number, : len(probe.ids)] = torch.tensor(probe.ids)
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    right: dict[str, list[bool]] = {}
    for number, probe in enumerate(probes):
        for place, point, truth, opposite in probe.decisions:
            likelier = logits[number, place - 1, truth] > logits[number, place - 1, opposite]
            right.setdefault(point, []).append(bool(likelier))
    return {point: sum(results) / len(results) for point, results in right.items()}
