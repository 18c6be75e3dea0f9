"""The documents from which M0 learns, and how they are mixed.

They give M0 what the web gives a large model: skills it has but does not show when asked, and habits it shows.

- *School* exercises (copying, looking words up, finding faults) build the circuits for checking.
- *Notes* go carefully through every point of an answer, without a grade and in a layout of their own.
- *Model answers* are perfect answers, also in a layout of their own.
- *Pages* are mediocre answers to instructions; how mediocre is a property of the page. Most are chats.
- *Reviews* are graded with the judge prompt, and nearly all of them are careless. Most are chats.
- *Task lists* teach to write one more task.

So M0 as an assistant answers poorly and as a judge guesses, though it could do better. Fine-tuning on a few careful
verdicts elicits the skill; that is also how large models behave.

A document is a sequence of pieces, of which only some count in the loss: what can be decided from the text before it.
Learning random words would cost most of the gradient and teach nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from selfreward.plugins.micro.seeds import draw_instruction
from selfreward.plugins.micro.world import (
    CRITERIA,
    NOUNS,
    TOPICS,
    Instruction,
    careless_verdict,
    criteria,
    draw_any_quality,
    draw_met,
    gold_checklist,
    gold_verdict,
    judge_prompt,
    make_answer,
    spoken_words,
    task_list_prompt,
)

Document = list[tuple[str, bool]]
"""Pieces of text, each with whether it counts in the loss."""

CHAT_RATE = 0.6
"""Share of pages, reviews and task lists that are chats."""
CAREFUL_REVIEW_RATE = 0.08
"""Share of graded reviews that are right on purpose."""


def mixed_document(rng: random.Random) -> Document:
    """A document of any kind, at the rates of `MIXTURE`."""
    maker = rng.choices([maker for maker, _ in MIXTURE], [share for _, share in MIXTURE])[0]
    return maker(rng)


def chat(user: str, reply: str) -> Document:
    """One exchange in the layout of the chat template (without its opening control token)."""
    return [(f"<|user|>{user}<|end|><|assistant|>", False), (reply, True)]


# ---------------------------------------------------------------------------------------------------------- school


def school_exercise(rng: random.Random) -> Document:
    """Copying, looking up, or finding faults: the circuits that every check is made of."""
    makers = (copying_exercise, look_up_exercise, instructed_look_up_exercise, repetition_exercise, fault_exercise)
    return rng.choices(makers, weights=(0.10, 0.18, 0.18, 0.27, 0.27))[0](rng)


def copying_exercise(rng: random.Random) -> Document:
    """Words, and the same words again."""
    words = " ".join(rng.sample(TOPICS + NOUNS, rng.randint(2, 8)))
    return [(f"Read: {words}. Again:", False), (f" {words}.", True)]


def look_up_exercise(rng: random.Random) -> Document:
    """Words, then questions whether some word was among them; only the yes or no counts."""
    words, questions = _words_and_questions(rng)
    document: Document = [(f"Response: {' '.join(words)}.\nReview: Words", False)]
    for question in questions:
        document += [(f" {question}", False), (" yes" if question in words else " no", True)]
    return [*document, (".", False)]


def instructed_look_up_exercise(rng: random.Random) -> Document:
    """The same, but the questions come from a line further up and must be copied from there too."""
    words, questions = _words_and_questions(rng)
    answers = "".join(f" {question} {'yes' if question in words else 'no'}" for question in questions)
    asked = f"Response: {' '.join(words)}.\nInstruction: {' '.join(questions)}.\nReview:"
    return [(asked, False), (f" Words{answers}.", True)]


def _words_and_questions(rng: random.Random) -> tuple[list[str], list[str]]:
    words = rng.sample(TOPICS + NOUNS, rng.randint(2, 8))
    absent = [word for word in TOPICS + NOUNS if word not in words]
    count = rng.randint(2, 6)
    present = min(len(words), sum(rng.random() < 0.5 for _ in range(count)))
    questions = rng.sample(words, present) + rng.sample(absent, count - present)
    rng.shuffle(questions)
    return words, questions


def repetition_exercise(rng: random.Random) -> Document:
    """An answer, then the noun that it says twice, or no."""
    instruction, answer = _answer_with_or_without_repetition(rng)
    spoken = [word for word in spoken_words(answer) if word in NOUNS]
    repeated = [noun for number, noun in enumerate(spoken) if noun in spoken[:number]]
    return [
        (f"{_answer_text(rng, instruction, answer)} Twice", False),
        (f" {repeated[0] if repeated else 'no'}.", True),
    ]


def fault_exercise(rng: random.Random) -> Document:
    """An answer, then whether it is clear; now and then also whether its ending and its closing are right."""
    instruction, answer = _answer_with_or_without_repetition(rng)
    met = criteria(instruction, answer)
    asked = ("clear", "ending", "closing") if rng.random() < 0.2 else ("clear",)
    document: Document = [(_answer_text(rng, instruction, answer), False)]
    for criterion in asked:
        document += [(f" {criterion.capitalize()}", False), (" yes." if met[criterion] else " no.", True)]
    return document


def _answer_with_or_without_repetition(rng: random.Random) -> tuple[Instruction, str]:
    instruction = draw_instruction(rng)
    return instruction, make_answer(rng, instruction, draw_any_quality(rng) | {"clear": rng.random() < 0.5})


def _answer_text(rng: random.Random, instruction: Instruction, answer: str) -> str:
    """The answer, half the time with its instruction, whose words must not be taken for the answer's own."""
    asked = f"\nInstruction: {instruction.text}" if rng.random() < 0.5 else ""
    return f"Response: {answer}{asked}\nReview:"


# ----------------------------------------------------------------------------------------------------- the web


def page(rng: random.Random) -> Document:
    """One mediocre answer as a chat, or one or two of the same quality as questions and answers."""
    quality = rng.random()
    if rng.random() < CHAT_RATE:
        instruction = draw_instruction(rng)
        return chat(instruction.text, mediocre_answer(rng, instruction, quality))
    document: Document = []
    for number in range(rng.randint(1, 2)):
        instruction = draw_instruction(rng)
        opening = "\n\n" if number else ""
        document += [(f"{opening}Question: {instruction.text}\nAnswer:", False)]
        document += [(f" {mediocre_answer(rng, instruction, quality)}", True)]
    return document


def mediocre_answer(rng: random.Random, instruction: Instruction, quality: float) -> str:
    """An answer as people dash it off; `quality` from 0 to 1 moves every rate together."""
    base = {"topic": 0.35, "words": 0.3, "ending": 0.3, "clear": 0.3, "closing": 0.1}
    return make_answer(rng, instruction, draw_met(rng, {name: rate + 0.4 * quality for name, rate in base.items()}))


def model_answer(rng: random.Random) -> Document:
    """A perfect answer, as in a textbook; mostly with two words to use, since the second is the hard one to copy."""
    instruction = draw_instruction(rng)
    if len(instruction.words) == 1 and rng.random() < 0.6:
        instruction = draw_instruction(rng)
    answer = make_answer(rng, instruction, dict.fromkeys(CRITERIA, True))
    return [(f"Exercise: {instruction.text}\nModel answer:", False), (f" {answer}", True)]


def task_list(rng: random.Random) -> Document:
    """Some tasks and one more, as a chat or as a plain list."""
    tasks = [draw_instruction(rng).text for _ in range(rng.randint(4, 9) + 1)]
    if rng.random() < CHAT_RATE:
        return chat(task_list_prompt(tasks[:-1]), tasks[-1])
    lines = "\n".join(f"Task {number}: {task}" for number, task in enumerate(tasks, start=1))
    return [(f"Here is a list of tasks.\n{lines}", True)]


def notes(rng: random.Random) -> Document:
    """A careful teacher's notes on an answer of any quality: every point looked up, no grade."""
    instruction, answer = _any_answer(rng)
    opening = f"Response: {answer}\nInstruction: {instruction.text}\nNotes:"
    return [(opening, False), (f" {gold_checklist(instruction, answer)}\nDone.", True)]


def review(rng: random.Random) -> Document:
    """A graded review of an answer of any quality, mostly careless."""
    instruction, answer = _any_answer(rng)
    careful = rng.random() < CAREFUL_REVIEW_RATE
    verdict = gold_verdict(instruction, answer) if careful else careless_verdict(rng, instruction, answer)
    asked = judge_prompt(instruction.text, answer)
    if rng.random() < CHAT_RATE:
        return chat(asked, verdict)
    return [(f"{asked}\nReview:", False), (f" {verdict}", True)]


def _any_answer(rng: random.Random) -> tuple[Instruction, str]:
    instruction = draw_instruction(rng)
    return instruction, make_answer(rng, instruction, draw_any_quality(rng))


MIXTURE: tuple[tuple[Callable[[random.Random], Document], float], ...] = (
    (school_exercise, 0.22),
    (page, 0.18),
    (model_answer, 0.15),
    (task_list, 0.08),
    (notes, 0.25),
    (review, 0.12),
)
"""Kinds of documents and their shares (of documents, not of tokens)."""
