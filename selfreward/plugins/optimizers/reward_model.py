"""Reward model: a number for an answer, learned from pairs of which one answer was preferred (Bradley-Terry).

With r, a linear head's output at the last token of prompt and answer, which is the end of the turn:

    loss = -log sigmoid(r_chosen - r_rejected - margin (s_chosen - s_rejected)) + center (r_chosen + r_rejected)^2

with scores s of the judge's. Source: arXiv:1706.03741 eq. 1, arXiv:2009.01325 §3.4; ``margin``: arXiv:2307.09288 eq. 2;
``center``: arXiv:2312.09244 eq. 2. It starts from a causal language model, which is given a head, or goes on from a
reward model (iterated RLHF, arXiv:2204.05862 §4.5).

The pairs do not say what 0 is. ``normalise`` makes it the mean over the data's demonstrations (arXiv:2009.01325 §3.4,
arXiv:2203.02155 §3.5):

    reward = r - shift,    shift = mean r

The head of a sequence classifier has no bias, and a loader would drop one without a word. So the shift stands in
``config.json`` as ``selfreward_reward_shift``, and who runs the model subtracts it.

Sequence classifiers are read at the last token that is not ``config.pad_token_id``, whatever a mask says. So that id is
one with which no answer ends, also where the tokenizer pads with its end of turn.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import pstdev
from typing import TYPE_CHECKING, Any

from selfreward import Chat, Preference, StageError, TrainingContext, TrainingSet, option
from selfreward.plugins.optimizers.training.loading import load_model, model_config
from selfreward.plugins.optimizers.training.optimizer import GradientOptimizer
from selfreward.plugins.optimizers.training.options import TrainingOptions
from selfreward.plugins.optimizers.training.rows import Row, fitting, pair_rows
from selfreward.plugins.optimizers.training.threads import cpu_threads
from selfreward.plugins.optimizers.trl_trainer.interface import Trl, tail_mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHIFT = "selfreward_reward_shift"
"""Where ``config.json`` says what is to be subtracted from the head's output."""

SIDES = ("chosen_ids", "rejected_ids")
TOGETHER = 8
"""Reference outputs that are read at once."""


@dataclass
class RewardModelConfig(TrainingOptions):
    """Options of ``optimizer=reward_model``."""

    lr: float = option(1e-5, gt=0)
    epochs: float = option(1.0, gt=0)
    center: float = option(0.0, ge=0)
    """Weight of (r_chosen + r_rejected)^2, which keeps rewards near 0 while it trains; 0 = off."""
    margin: float = option(0.0, ge=0)
    """Gap between the rewards of a pair that is asked for, per point of difference between its scores; 0 = none."""
    normalise: bool = True
    """Shift the rewards so that their mean over the reference outputs is 0."""
    reference_rows: int = option(512, ge=1)
    """Reference outputs at most: the data's demonstrations, evenly spaced, or without them the training answers."""


class RewardModel(GradientOptimizer):
    """TRL's reward trainer on tokens of ours."""

    reads = Preference
    makes = "reward"
    config: RewardModelConfig

    def update(self, training: TrainingSet, context: TrainingContext) -> Mapping[str, float]:
        """Train and save.

        Figures, over the last 20 % of the steps: ``loss`` and ``accuracy`` (share of pairs in the right order);
        ``steps``, ``rows``, ``too_long``; on the reference outputs, ``reference_rows`` in number: ``reward_mean`` and
        ``reward_std`` of the head, and ``shift``, what is subtracted from it; where prompts are held out, also those of
        :func:`selfreward.plugins.optimizers.trl_trainer.holdout.holdout_figures`.

        Raises:
            StageError: a pair is no pair, a token is not in the start's vocabulary, no row fits, the start is another
                classifier, or training diverged.
        """
        from trl import RewardConfig, RewardTrainer
        from trl.trainer.reward_trainer import DataCollatorForPreference

        from selfreward.plugins.optimizers.trl_trainer.run import train_rows

        chat, config = context.start.chat(), self.config
        vocabulary = int(model_config(context.start).get_text_config().vocab_size)
        rows = list(_rows(training, chat, config.margin))
        _check_tokens(rows, vocabulary, chat, context)
        reference = _reference(rows, chat, context, config)
        pad_id = free_pad_id(chat, rows, vocabulary)
        if added := chat.tokenizer.added_tokens_decoder.get(pad_id):
            chat.tokenizer.pad_token = added.content  # so that others who load the checkpoint pad with it
        trainer = type("Reward", (HeadInFloat32, RewardTrainer), {"pad_id": pad_id})
        tail, figures = train_rows(
            Trl(trainer, RewardConfig, DataCollatorForPreference),
            rows,
            chat,
            context,
            config,
            # our own ``dropout`` rules the model, and TRL's switch would silence that of the adapters too
            {"center_rewards_coefficient": config.center or None, "disable_dropout": False},
            model=_load(context, config.dropout),
            pad_id=pad_id,
        )
        figures["accuracy"] = tail_mean(tail, "accuracy")
        return figures | _normalise(reference, context, config)


class HeadInFloat32:
    """What TRL's reward trainer does besides: its model pads with an id of ours, and its head is trained in float32."""

    pad_id: int

    def __init__(self: Any, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.processing_class = None  # its padding token would become the model's
        self.model.config.get_text_config().pad_token_id = self.pad_id
        for weight in self.model.parameters():
            if weight.requires_grad:  # PEFT leaves the head in bfloat16, where small steps are lost
                weight.data = weight.data.float()


def free_pad_id(chat: Chat, rows: Iterable[Row], vocabulary: int) -> int:
    """An id with which no answer ends: the tokenizer's own, else a control token's, else the lowest."""
    ends = chat.stop_ids | {row[side][-1] for row in rows for side in SIDES}
    known = (chat.pad_id, *sorted(chat.tokenizer.added_tokens_decoder), *range(vocabulary))
    return next(i for i in known if i not in ends and i < vocabulary)


def _rows(training: TrainingSet, chat: Chat, margin: float) -> Iterator[Row]:
    """Each answer after its prompt."""
    for scored, row in zip(training, pair_rows(training, chat), strict=True):
        ids = {side: row["prompt_ids"] + row[side] for side in SIDES}
        gap = {"margin": margin * (scored.chosen_score - scored.rejected_score)} if margin else {}
        yield {**ids, **gap, "length": row["length"], "prompt_id": row["prompt_id"]}


def _check_tokens(rows: list[Row], vocabulary: int, chat: Chat, context: TrainingContext) -> None:
    largest = max(max(row[side]) for row in rows for side in SIDES)
    tokenizer = len(chat.tokenizer)
    if max(largest + 1, tokenizer) > vocabulary:
        raise StageError(
            f"the model that training starts from ({context.start.name}) has a vocabulary of {vocabulary} tokens and a "
            f"tokenizer of {tokenizer}, and the answers hold tokens up to {largest}. Let optimizer.init_from name a "
            "model with the tokenizer of the one that sampled them, and with a row of embeddings for each of its tokens"
        )


def _load(context: TrainingContext, dropout: float) -> PreTrainedModel:
    """The start as a reward model; where it has no head, one is drawn from the seed."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    config = model_config(context.start)
    classifies = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    if classifies and config.num_labels != 1:
        raise StageError(
            f"{context.start.path}: a classifier with {config.num_labels} outputs is no reward model, which has one; "
            "let optimizer.init_from name a reward model or a causal language model"
        )
    torch.manual_seed(context.seed)
    with suppress_seqcls_warning():
        model = load_model(context.start, dropout, AutoModelForSequenceClassification, num_labels=1)
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        raise StageError(
            f"{context.start.path}: a {type(model).__name__} has no linear head `score` over the last token, as reward "
            "models of causal language models have; start from a model of another architecture"
        )
    setattr(model.config, SHIFT, 0.0)
    return model


def _reference(rows: list[Row], chat: Chat, context: TrainingContext, config: RewardModelConfig) -> list[list[int]]:
    """The outputs whose mean reward is made 0.

    Raises:
        StageError: no demonstration fits.
    """
    outputs = list(context.reference_outputs()) if context.reference_outputs else []
    ids = [chat.encode(asked) + chat.encode_reply(reply) for asked, reply in _spaced(outputs, config.reference_rows)]
    ids = ids or _spaced([row[side] for row in rows for side in SIDES], config.reference_rows)
    table = [{"ids": row, "length": len(row)} for row in ids]
    return [row["ids"] for row in fitting(table, config.max_length, context.start, "reference outputs")[0]]


def _spaced(rows: Sequence[Any], n: int) -> list[Any]:
    """``n`` of the rows at most, evenly spaced."""
    n = min(n, len(rows))
    return [rows[k * len(rows) // n] for k in range(n)]


def _normalise(reference: Sequence[list[int]], context: TrainingContext, config: RewardModelConfig) -> dict[str, float]:
    """Read the saved model's rewards of the reference outputs, and write the shift beside its weights."""
    import torch
    from accelerate import PartialState
    from transformers import AutoModelForSequenceClassification

    if not PartialState().is_main_process:
        return {}
    gc.collect()  # the trainer goes in circles
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForSequenceClassification.from_pretrained(
        context.out, dtype="auto", trust_remote_code=False, use_safetensors=True
    )
    model.to(device).eval()
    with cpu_threads(config.threads, model):
        rewards = _read(model, sorted(reference, key=len))
    mean = math.fsum(rewards) / len(rewards)
    shift = mean if config.normalise else 0.0
    path = context.out / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {SHIFT: shift}, indent=2) + "\n", "utf-8")
    spread = {"reward_mean": mean, "reward_std": pstdev(rewards), "shift": shift}
    return {**spread, "reference_rows": len(rewards)}


def _read(model: Any, sequences: Sequence[list[int]]) -> list[float]:
    """What the head, in float32, says at the last token of each sequence; what is padded on the right is not seen."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    head, found = model.score.float(), []
    for start in range(0, len(sequences), TOGETHER):
        some = sequences[start : start + TOGETHER]
        ids = pad_sequence([torch.tensor(tokens) for tokens in some], batch_first=True)
        with torch.inference_mode():
            hidden = model.base_model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
            last = hidden[torch.arange(len(some)), [len(tokens) - 1 for tokens in some]]
            found += head(last.float())[:, 0].tolist()
    return found
