"""Chat encoding: messages to token ids, such that no content can speak with the template's voice.

Prompts, candidates and data are untrusted text. The template is rendered with sentinels in place of the contents; in
what it wrote itself, added tokens are found as usual; contents are then put in as **plain text**, for which a copy of
the tokenizer without added tokens is used. A candidate that contains ``<|im_end|>`` is spelled in ordinary pieces::

    template text   <|im_start|>user\\n [0] <|im_end|>\\n <|im_start|>assistant\\n
    control ids     <|im_start|>             <|im_end|>   <|im_start|>
    plain runs                  "user\\n" + content      "\\n"           "assistant\\n"

A plain run (template text and contents between two control tokens) is encoded as a whole, so harmless messages give the
ids of ``apply_chat_template``. What differs: a template that looks into a content for its own markers (``</think>``)
does not find them, and a control token that swallows white space (``rstrip``) swallows none of a content. Markers that
are no added tokens (Llama-2's ``[INST]``) are plain text to begin with, for the template as for anybody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward.core.errors import UserError
from selfreward.core.text.messages import Message

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_SENTINEL = "\ue000{}\ue001"  # private-use characters: no template changes them by upper(), trim or the like
_SENTINELS = re.compile("\ue000(\\d+)\ue001")
_ROLES = ("system", "user", "assistant")


class Chat:
    """A tokenizer with its chat template: the one way in which messages become tokens, for engines and trainers.

    Attributes:
        tokenizer: the Hugging Face tokenizer; its ``chat_template`` is the one in use.
        stop_ids: token ids that end a reply: the tokenizer's EOS, those of ``generation_config.json``, and the control
            token that closes an assistant turn in the template.
        pad_id: id to fill batches with. It may equal a stop id: what is padding is told by masks, never by value.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, more_stop_ids: Iterable[int] = ()) -> None:
        """Use :meth:`load`; ``name`` stands for the model in messages to people."""
        self.tokenizer = tokenizer
        self.name = name
        added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
        # what a piece outside the vocabulary becomes controls nothing, unless it is EOS as well (GPT-2)
        self._unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id}
        # runs of white space are added tokens in some vocabularies (Gemma); they control nothing
        self._controls = frozenset(i for i, text in added.items() if not _is_blank(text)) - self._unknown
        self._plain = _PlainText(tokenizer.backend_tokenizer, self._controls, added)

        before, end_id, opens_section = self._assistant_turn()
        self._before_reply, self._reply_opens_section, self._end_id = before, opens_section, end_id
        self.stop_ids = frozenset({tokenizer.eos_token_id, end_id, *more_stop_ids})
        self.pad_id: int = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

        # decoders drop the space that starts a text; what a reply says starts in the middle of one
        anchor = self._plain.encode("a", "continuation")
        self._anchor = anchor if self._text(anchor * 2) == "aa" else []
        self._shown_before_reply = self.decode(self.encode_reply("a"), continues=True).removesuffix("a")

    @classmethod
    def load(cls, path: str, template: str | None = None) -> Chat:
        """The chat of a checkpoint folder (or hub name); ``template`` is jinja text or the path of a file with it.

        Raises:
            UserError: no tokenizer, no chat template, no EOS token; a template that does not show the messages.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        except (OSError, ValueError, ImportError) as problem:
            raise UserError(f"{path}: the tokenizer cannot be loaded: {problem}") from None
        if template is not None:
            tokenizer.chat_template = _template_text(template)
        problems = []
        if not tokenizer.is_fast:
            problems.append(f"{path}: the tokenizer has no tokenizer.json; save it again as a fast tokenizer")
        if not tokenizer.chat_template:
            problems.append(f"{path}: the tokenizer has no chat template; give one: model.chat_template=FILE.jinja")
        if tokenizer.eos_token_id is None:
            problems.append(f"{path}: the tokenizer has no EOS token; set eos_token in its tokenizer_config.json")
        if problems:
            raise UserError(problems)
        return cls(tokenizer, path, _generation_stop_ids(path))

    def encode(self, messages: Sequence[Message], reply_prefix: str = "") -> list[int]:
        """Prompt ids of a conversation, generation prompt included, then ``reply_prefix`` as plain text.

        Where the template knows no system role, a system text stands at the head of the first user turn.

        Raises:
            UserError: the template refuses the conversation (roles must alternate, ...).
        """
        if len(messages) > 1 and messages[0]["role"] == "system" and self._refuses_system:
            system, first, *rest = messages
            messages = [first | {"content": f"{system['content']}\n\n{first['content']}"}, *rest]
        parts = list(self._parts(self._render(messages, generation_prompt=True), [m["content"] for m in messages]))
        if reply_prefix:
            parts.append(self._before_reply + reply_prefix)
        return self._ids(parts)

    @cached_property
    def _refuses_system(self) -> bool:
        turns = [{"role": role, "content": "x"} for role in ("system", "user")]
        try:
            self._render(turns, generation_prompt=True)
        except UserError:
            return True
        return False

    def encode_reply(self, text: str, *, continues: bool = False) -> list[int]:
        """Ids of a finished reply: plain text, then the token that ends an assistant turn in the template.

        They follow those of :meth:`encode`. The text is kept as it is, also where the template trims past turns.
        ``continues``: the reply goes on after a ``reply_prefix``.
        """
        if continues:
            return [*self._plain.encode(text, "continuation"), self._end_id]
        start = "section" if self._reply_opens_section else "continuation"
        return [*self._plain.encode(self._before_reply + text, start), self._end_id]

    def decode(self, token_ids: Iterable[int], *, continues: bool = False) -> str:
        """Text of a reply without control tokens; white space is kept as it is.

        ``continues``: the reply goes on after a ``reply_prefix``, so a space at its start is its own.
        """
        ids = [i for i in token_ids if i not in self._controls and i not in self._unknown]
        text = self._text(self._anchor + ids).removeprefix("a" if self._anchor else "")
        return text if continues else text.removeprefix(self._shown_before_reply)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer and template into a checkpoint folder."""
        self.tokenizer.save_pretrained(str(folder))

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _render(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        """The template's text, with numbered sentinels for the contents.

        The white space around a content stays in place: it is harmless, and the template may trim it.
        """
        from jinja2.exceptions import TemplateError

        shown = []
        for number, message in enumerate(messages):
            if message["role"] not in _ROLES:
                raise UserError(f"{self.name}: a message has the role {message['role']!r}; known: {', '.join(_ROLES)}")
            content = message["content"]
            core = content.strip()
            shown.append(message | {"content": content.replace(core, _SENTINEL.format(number), 1) if core else content})
        try:
            text = self.tokenizer.apply_chat_template(shown, tokenize=False, add_generation_prompt=generation_prompt)
        except TemplateError as problem:
            roles = ", ".join(m["role"] for m in messages)
            raise UserError(
                f"{self.name}: its chat template refuses a conversation with the roles {roles}: {problem}. Change the "
                "data, or give another template: model.chat_template="
            ) from None
        return str(text)

    def _parts(self, rendered: str, contents: Sequence[str]) -> Iterator[int | str]:
        """Control ids and plain text, in order: the template's pieces and the contents."""
        for position, piece in enumerate(_SENTINELS.split(rendered)):
            if position % 2:
                yield contents[int(piece)].strip()
            elif piece:
                yield from self._template_pieces(piece)

    def _template_pieces(self, text: str) -> tuple[int | str, ...]:
        """The template's own text, cut at the control tokens in it."""
        found = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        pieces: list[int | str] = []
        done = 0
        for token_id, (start, end) in zip(found.ids, found.offsets, strict=True):
            if token_id in self._controls:
                pieces += [text[done:start], token_id]
                done = end
        return (*pieces, text[done:])

    def _ids(self, parts: Iterable[int | str]) -> list[int]:
        """Token ids of control ids and plain text; neighbouring texts are one run."""
        ids: list[int] = []
        run = ""
        for part in [*parts, None]:
            if isinstance(part, str):
                run += part
                continue
            if run:
                ids += self._plain.encode(run, "section" if ids else "start")
            run = ""
            if part is not None:
                ids.append(part)
        return ids

    def _assistant_turn(self) -> tuple[str, int, bool]:
        """What the template writes around a reply.

        Returns:
            White space between the generation prompt and the reply, the token that ends the turn, and whether the
            reply directly follows a control token.
        """
        turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
        prompt = self._render(turns[:1], generation_prompt=True)
        before, mark, after = self._render(turns, generation_prompt=False).rpartition(_SENTINEL.format(1))
        if not mark or _SENTINEL.format(0) not in before:
            raise UserError(f"{self.name}: its chat template does not show the messages; see model.chat_template=")
        space = before.removeprefix(prompt)
        space = space if space.isspace() and before.startswith(prompt) else ""
        ends = [piece for piece in self._template_pieces(after) if isinstance(piece, int)]
        pieces = [p for p in self._parts(prompt, ["u"]) if p != ""]
        return space, ends[0] if ends else self.tokenizer.eos_token_id, not space and isinstance(pieces[-1], int)


class _PlainText:
    """Encodes text in which nothing is a control token.

    Where a text starts decides about the space that some tokenizers put before it: at the ``start`` of everything, of a
    ``section`` (right after a control token), or as a ``continuation`` of other text (never a space).
    """

    def __init__(self, backend: Tokenizer, controls: frozenset[int], added: Mapping[int, str]) -> None:
        self._controls = controls
        self._literals = {i: literal for i, literal in added.items() if not _is_blank(literal)}
        self._backends = _plain_backends(backend)

    def encode(self, text: str, where: str) -> list[int]:
        """Ids of the text, never those of a control token.

        A model that looks pieces up whole (unigram, word-level) may know a control token's literal: it is broken up.
        """
        found = self._backends[where].encode(text, add_special_tokens=False)
        if self._literals.keys().isdisjoint(found.ids):
            return found.ids
        # the unknown token controls nothing and may stand for a strange character, but not for its own literal
        spans = [(i, s, e) for i, (s, e) in zip(found.ids, found.offsets, strict=True) if i in self._literals]
        cuts = [s + 1 for i, s, e in spans if e - s > 1 and (i in self._controls or text[s:e] == self._literals[i])]
        if not cuts:  # a single character that is a control token cannot be spelled otherwise: it is left out
            return [i for i in found.ids if i not in self._controls]
        ids = self.encode(text[: cuts[0]], where)
        for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
            ids += self.encode(text[start:end], "continuation")
        return ids


def _plain_backends(backend: Tokenizer) -> dict[str, Tokenizer]:
    """Copies of the backend tokenizer without added tokens, by where a text starts."""
    from tokenizers import Tokenizer

    spec = json.loads(backend.to_str())
    vocabulary = spec["model"]["vocab"]
    known = vocabulary if isinstance(vocabulary, dict) else {piece: i for i, (piece, _) in enumerate(vocabulary)}
    added = spec["added_tokens"]
    spec["added_tokens"] = [t for t in added if _is_blank(t["content"]) and known.get(t["content"]) == t["id"]]
    spec |= {"post_processor": None, "truncation": None, "padding": None}
    backends: dict[str, Tokenizer] = {}
    copies: dict[str, dict[str, Any]] = {}
    for where in ("start", "section", "continuation"):
        edited = {part: _without_prefix(spec[part], where) for part in ("normalizer", "pre_tokenizer")}
        same = next((known for known, parts in copies.items() if parts == edited), None)
        copies[where] = edited
        # a large vocabulary takes its time to copy; most tokenizers add no space and need one copy only
        backends[where] = backends[same] if same else Tokenizer.from_str(json.dumps(spec | edited))
    return backends


def _is_blank(literal: str) -> bool:
    return not literal.replace("▁", " ").strip()


def _without_prefix(part: dict[str, Any] | None, where: str) -> dict[str, Any] | None:
    """A normalizer's or pre-tokenizer's JSON without the space it would put before a text that starts there."""
    if part is None or where == "start":
        return part
    inner = next((key for key in ("normalizers", "pretokenizers") if key in part), None)
    if inner:
        return part | {inner: [p for p in (_without_prefix(p, where) for p in part[inner]) if p]}
    if part["type"] == "Metaspace" and (where == "continuation" or part["prepend_scheme"] == "first"):
        return part | {"prepend_scheme": "never"}
    if where == "continuation" and part["type"] == "Prepend":
        return None
    if where == "continuation" and "add_prefix_space" in part:
        return part | {"add_prefix_space": False}
    return part


def _template_text(template: str) -> str:
    """Jinja text as it is; anything else is the path of a file with it."""
    if "{{" in template or "{%" in template:
        return template
    if not Path(template).is_file():
        raise UserError(f"model.chat_template={template}: neither a file nor a jinja template")
    return Path(template).read_text(encoding="utf-8")


def _generation_stop_ids(path: str) -> list[int]:
    """The EOS ids that a checkpoint's generation config lists (chat models often have several)."""
    from transformers import GenerationConfig

    try:
        listed = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # most checkpoints of base models have no such file
        return []
    return [] if listed is None else [listed] if isinstance(listed, int) else list(listed)
