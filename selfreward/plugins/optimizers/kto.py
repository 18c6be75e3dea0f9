"""KTO: raise desirable answers, lower undesirable ones, each on its own; no pairs are needed.

With d = log pi(answer | prompt) - log ref(answer | prompt), summed over the answer's tokens:

- a desirable answer: desirable_weight (1 - sigmoid(beta (d - z)))
- an undesirable one: undesirable_weight (1 - sigmoid(beta (z - d)))

where z = max(0, mean of d over answers to other prompts) estimates the KL divergence from the reference, through which
no gradient flows. Source: arXiv:2402.01306 eq. 7 and 8.

Of a pair the chosen answer is desirable and the rejected one undesirable; of scored answers those are desirable that
reach ``threshold``. Where the kinds are of unequal number, the paper wants desirable_weight * desirable /
(undesirable_weight * undesirable) between 1 and 4/3.

TRL estimates z on the answers of the batch, each put behind the prompt of its neighbour, for which batches must stay as
they are over all epochs. Here every row brings along the answer to another prompt that it lends its prompt to: each
answer serves once, an answer is never put behind its own prompt, and batches are drawn anew in each epoch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward import Chat, Preference, Scored, StageError, TrainingSet, option
from selfreward.plugins.optimizers.training.replay import ReplayOptions
from selfreward.plugins.optimizers.training.rows import Row, answer_ids, pair_rows
from selfreward.plugins.optimizers.trl_trainer.frozen_reference import OWN_REFERENCE, FrozenReference
from selfreward.plugins.optimizers.trl_trainer.interface import Logs, Trl, tail_mean
from selfreward.plugins.optimizers.trl_trainer.offline import OfflineOptimizer


@dataclass
class KtoConfig(ReplayOptions):
    """Options of ``optimizer=kto``."""

    beta: float = option(0.1, gt=0)
    """Strength of the pull towards the reference."""
    desirable_weight: float = option(1.0, gt=0)
    """Weight of the loss of desirable answers."""
    undesirable_weight: float = option(1.0, gt=0)
    """Weight of the loss of undesirable answers."""
    threshold: float = 3.0
    """Scored answers with at least this score are desirable, the others undesirable; pairs need none."""

    def problems(self) -> list[str]:
        """A pass of one answer."""
        few = self.batch_size < 2 * self.gradient_accumulation
        problem = (
            f"batch_size={self.batch_size} must be at least twice gradient_accumulation={self.gradient_accumulation}: "
            "the KL divergence is estimated on the answers of a pass"
        )
        return [*super().problems(), *[problem] * few]


class Kto(OfflineOptimizer):
    """TRL's KTO trainer on tokens of ours.

    Figures besides those that all share, over the last 20 % of the steps: ``reward_accuracy`` (share of answers on the
    right side of the KL divergence: desirable ones above); ``chosen_change``, ``rejected_change`` (log-probability of
    a desirable or undesirable answer minus the reference's); ``kl`` (z in nats). ``rows`` are answers, and
    ``desirable_share`` is of all of them, too long ones included.
    """

    reads = (Preference, Scored)
    config: KtoConfig

    def rows(self, training: TrainingSet, chat: Chat) -> Iterable[Row]:
        if issubclass(training.row_type, Preference):
            return _paired(training, chat)
        return _scored(training, chat, self.config.threshold)

    def trl(self) -> Trl:
        from trl import KTOConfig, KTOTrainer
        from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

        trainer = type("Kto", (KtoOnTokens, KTOTrainer), {"options": self.config})
        return Trl(trainer, KTOConfig, DataCollatorForUnpairedPreference)

    def arguments(self) -> dict[str, Any]:
        config = self.config
        return OWN_REFERENCE | {
            "beta": config.beta,
            "desirable_weight": config.desirable_weight,
            "undesirable_weight": config.undesirable_weight,
            # TRL insists; its reason does not hold here, and our trainer draws the rows as it is told to
            "train_sampling_strategy": "sequential",
        }

    def figures(self, tail: Sequence[Logs], rows: Sequence[Row]) -> dict[str, float]:
        figures = {"reward_accuracy": tail_mean(tail, "rewards/accuracies"), "kl": tail_mean(tail, "kl")}
        figures["desirable_share"] = sum(row["label"] for row in rows) / len(rows)
        for name, kind in (("chosen_change", "desirable"), ("rejected_change", "undesirable")):
            share = tail_mean(tail, f"share/{kind}")
            figures |= {name: tail_mean(tail, f"change/{kind}") / share} if share else {}
        return figures


def _paired(pairs: Iterable[Preference], chat: Chat) -> Iterator[Row]:
    for row in pair_rows(pairs, chat):
        for place, answer in enumerate((row["chosen_ids"], row["rejected_ids"])):
            number = 2 * row["number"] + place
            yield _row(row["prompt_ids"], answer, label=not place, number=number, prompt_id=row["prompt_id"])


def _scored(answers: Iterable[Scored], chat: Chat, threshold: float) -> Iterator[Row]:
    for number, row in enumerate(answers):
        answer, label = answer_ids(chat, row.token_ids, row.completion), row.score >= threshold
        given = {"number": number, "prompt_id": row.prompt_id, "score": row.score}
        yield _row(chat.encode(row.prompt), answer, label=label, **given)


def _row(prompt: list[int], answer: list[int], **columns: Any) -> Row:
    return {"prompt_ids": prompt, "completion_ids": answer, "length": len(prompt) + len(answer), **columns}


def _check_kinds(rows: Any, config: KtoConfig) -> None:
    """Both kinds of answers must be there.

    Raises:
        StageError: one is not.
    """
    labels = rows["label"]
    if 0 < sum(labels) < len(labels):
        return
    kind = "undesirable" if labels[0] else "desirable"
    if "score" in rows.column_names:
        scores = rows["score"]
        why = (
            f"their scores go from {min(scores):g} to {max(scores):g} and optimizer.threshold is "
            f"{config.threshold:g}; {'raise' if labels[0] else 'lower'} it, or give the judge more to tell them apart"
        )
    else:
        why = f"those of the other kind exceed optimizer.max_length={config.max_length}; raise it"
    raise StageError(f"none of the {len(labels)} answers to train on is {kind}, and KTO needs both kinds: {why}")


def partners(prompts: Sequence[str]) -> list[int]:
    """For each row the row whose answer is put behind its prompt: of another prompt, and each serves once.

    Sorted by prompt, everybody takes the row that comes as many places later as the commonest prompt has rows, which
    fails only where that prompt has more than half of all.
    """
    step = max(Counter(prompts).values())
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    taken = {row: order[(place + step) % len(order)] for place, row in enumerate(order)}
    return [taken[row] for row in range(len(prompts))]


class KtoOnTokens(FrozenReference):
    """What TRL's KTO trainer does in place of its own ways, on rows that are token ids already."""

    options: KtoConfig
    reference_columns = ("ref_logps", "ref_KL_logps")

    def _prepare_dataset(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
        """Lend the prompts; what is lent is cut to the longest row, and nobody is trained on it."""
        if name == "train":
            _check_kinds(dataset, self.options)
        answers, longest = list(dataset["completion_ids"]), max(dataset["length"])
        rooms = [longest - len(prompt) for prompt in dataset["prompt_ids"]]
        lent = zip(partners(list(dataset["prompt_id"])), rooms, strict=True)
        return dataset.add_column("KL_completion_ids", [answers[other][:room] for other, room in lent])

    def _get_train_sampler(self: Any, train_dataset: Any = None) -> Any:
        self.args.train_sampling_strategy = "group_by_length" if self.options.group_by_length else "random"
        return super()._get_train_sampler(train_dataset)  # type: ignore[misc]

    def _compute_loss(self: Any, model: Any, inputs: Any, return_outputs: bool) -> Any:
        """As TRL's, with figures that can be averaged over batches in which a kind is missing."""
        import torch

        outputs: list[Any] = []

        def recording(**given: Any) -> Any:
            outputs.append(model(**given))
            return outputs[-1]

        loss = super()._compute_loss(recording, inputs, return_outputs)  # type: ignore[misc]
        metrics = self._metrics["train" if self.model.training else "eval"]
        logratios = outputs[-1].log_probs.detach().sum(1) - inputs["ref_logps"]
        desirable = inputs["label"].bool()
        logged = {
            "rewards/accuracies": (logratios > metrics["kl"][-1]) == desirable,
            "share/desirable": desirable,
            "share/undesirable": ~desirable,
            "change/desirable": logratios * desirable,
            "change/undesirable": logratios * ~desirable,
        }
        gathered = self.accelerator.gather(torch.stack([values.float() for values in logged.values()], 1))
        for name, values in zip(logged, gathered.T, strict=True):
            metrics[name].append(values.mean().item())
        return loss
