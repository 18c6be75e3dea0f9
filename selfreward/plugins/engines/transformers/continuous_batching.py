"""Writes many replies at once; a row that has ended makes room for one that waits.

A row is its tokens, of which all but the last are in the cache: each step runs the last token of every row, draws the
next one, and lets rows go that have ended. When enough slots are free, the next prompts are read (equal ones once) and
their rows join. Rows wait in the order of their prompts' length, the longest first; as many slots are made as
``max_batch_tokens`` has room for prompts and replies of the length that is now in work, so their number grows.

All of it depends on the requests of the call and the budget alone: on a CPU in float32 the same call gives the same
bytes. Source: iteration-level scheduling, Orca (OSDI 2022).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch

from selfreward import Completion, Sampling
from selfreward.plugins.engines.reply import Reply
from selfreward.plugins.engines.transformers.causal_lm import READ_AT_ONCE, CausalLm, parts
from selfreward.plugins.engines.transformers.decode_attention import columns_read
from selfreward.plugins.engines.transformers.draw import Draw
from selfreward.plugins.engines.transformers.slots import Slots, without
from selfreward.plugins.engines.transformers.trie import Trie

WORTH_READING = 1 / 3
"""New rows are let in when this share of the slots is free: few of them at a time keep the model busy worse."""
WORTH_SORTING = 7 / 8
"""Rows are put in order when a step then reads at most this share of the cache it would read otherwise."""
WORTH_WIDENING = 5 / 4
"""A batch is laid out anew when so many times its slots have room."""


class Writer:
    """Writes replies that are sampled in one way and all do, or all do not, go on after a given text."""

    def __init__(self, lm: CausalLm, sampling: Sampling, continues: bool, budget: int) -> None:
        chat = lm.chat
        spelled = [chat.encode_reply(choice, continues=continues) for choice in sampling.choices]
        self._lm, self._continues, self._budget = lm, continues, budget
        self._draw = Draw(sampling, Trie(spelled, lm.vocabulary, lm.device) if spelled else None)
        self._sampling, self._stop = sampling, [text for text in sampling.stop if text]
        # a token spells at least one byte
        self._tail = max((len(text.encode()) for text in self._stop), default=0)

    def write(self, replies: list[Reply], ended: Callable[[list[Reply]], None]) -> None:
        """Write them all to their end; ``ended`` is told as they do."""
        waiting = deque(sorted(replies, key=lambda r: (-len(r.prompt), r.prompt)))
        self._prefix = self._lm.prefix(list(dict.fromkeys(reply.read_ahead for reply in waiting)))
        live: list[Reply] = []
        slots = self._layout(live, waiting, None)
        while waiting or live:
            if waiting and self._lets_in(live, slots):
                live = self._sort(live, slots) if live else live
                slots = self._layout(live, waiting, slots)
                new = [waiting.popleft() for _ in range(min(slots.count - len(live), len(waiting)))]
                self._read(new, slots)
                live += new
            self._step(live, slots)
            done = [slot for slot, reply in enumerate(live) if self._has_ended(reply)]
            if done:
                ended([live[slot] for slot in done])
                live = self._keep(live, without(done, len(live)), slots)

    def completion(self, reply: Reply) -> Completion:
        """What was written."""
        stopped = reply.tokens[-1] in self._lm.chat.stop_ids
        text = self._text(reply.tokens[:-1] if stopped else reply.tokens)
        cuts = [at for at in map(text.find, self._stop) if at >= 0]
        reason = "stop" if stopped or cuts else "length"
        return Completion(text[: min(cuts, default=None)], reply.tokens, reason, reply.seed)

    def _layout(self, live: list[Reply], waiting: deque[Reply], slots: Slots | None) -> Slots:
        """Slots for the replies of the length that is now in work: those there are, or new ones with the rows moved."""
        room = max(map(self._room, [*live, waiting[0]]))
        count = max(1, min(self._budget // room, len(live) + len(waiting)))
        if slots is not None and count < WORTH_WIDENING * slots.count:
            return slots
        wider = Slots(self._lm.config, count, room)
        if slots is not None and live:
            wider.admit(slots.cache, torch.arange(len(live), device=self._lm.device))
        return wider

    def _room(self, reply: Reply) -> int:
        """Columns it takes when it is as long as it may be; rows of one age are padded to the longest prompt."""
        return len(reply.prompt) + (reply.limit if self._lm.replaces else self._sampling.max_new_tokens)

    def _lets_in(self, live: list[Reply], slots: Slots) -> bool:
        free = slots.count - len(live)
        return not live or (self._lm.replaces and free >= max(1, WORTH_READING * slots.count))

    def _sort(self, live: list[Reply], slots: Slots) -> list[Reply]:
        """The longest rows first, where that pays; the new ones, whose prompts are the shortest, will be the last."""
        order = sorted(range(len(live)), key=lambda slot: -live[slot].column)
        lengths = [reply.column + 1 for reply in live]
        if columns_read([lengths[slot] for slot in order]) > WORTH_SORTING * columns_read(lengths):
            return live
        return self._keep(live, order, slots)

    def _keep(self, live: list[Reply], order: list[int], slots: Slots) -> list[Reply]:
        slots.keep(order)
        return [live[slot] for slot in order]

    def _read(self, new: list[Reply], slots: Slots) -> None:
        """Read the prompts of new rows, but for their last token, into the free slots."""
        rows: dict[tuple[int, ...], list[Reply]] = {}
        for reply in new:
            rows.setdefault(reply.read_ahead, []).append(reply)
        whole = not self._lm.replaces  # rows of one age are padded alike and have their places in one cache
        for prompts in parts(list(rows), lambda prompt: len(rows) if whole else READ_AT_ONCE // max(1, len(prompt))):
            read = self._lm.read(prompts, self._prefix, left=whole)
            slots.admit(read.cache, self._lm.tensor([i for i, prompt in enumerate(prompts) for _ in rows[prompt]]))
            if whole:
                for reply in new:
                    reply.padding = read.mask.shape[1] - len(reply.read_ahead)

    def _step(self, live: list[Reply], slots: Slots) -> None:
        last = [(reply.tokens or reply.prompt)[-1] for reply in live]
        logits = self._lm.step(last, [reply.column for reply in live], [reply.padding for reply in live], slots)
        for reply, token in zip(live, self._draw(logits, live), strict=True):
            reply.tokens.append(token)

    def _has_ended(self, reply: Reply) -> bool:
        if len(reply.tokens) == reply.limit or reply.tokens[-1] in self._lm.chat.stop_ids:
            return True
        if not self._tail or not self._holds_stop(reply.tokens[-self._tail :]):
            return False
        return self._holds_stop(reply.tokens)  # half a character at the tail's start may have looked like a stop text

    def _holds_stop(self, tokens: Sequence[int]) -> bool:
        text = self._text(tokens)
        return any(stop in text for stop in self._stop)

    def _text(self, tokens: Sequence[int]) -> str:
        return self._lm.chat.decode(tokens, continues=self._continues)
