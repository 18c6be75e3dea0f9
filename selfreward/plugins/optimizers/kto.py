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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfreward import (
    Chat,
    FileContext,
    Optimizer,
    Preference,
    Scored,
    StageError,
    TrainingContext,
    TrainingSet,
    option,
)
from selfreward.plugins.optimizers.frozen_reference import FrozenReference, reference_model
from selfreward.plugins.optimizers.pairs import pair_rows
from selfreward.plugins.optimizers.replay import Replay, ReplayLoss, ReplayOptions, open_replay
from selfreward.plugins.optimizers.trl_trainer import answer_ids, lora_problems, tail_mean, train

if TYPE_CHECKING:
    from trl import KTOTrainer


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
        """Rules between options."""
        few = self.batch_size < 2 * self.gradient_accumulation
        told = (
            f"batch_size={self.batch_size} must be at least twice gradient_accumulation={self.gradient_accumulation}: "
            "the KL divergence is estimated on the answers of a pass"
        )
        return [*super().problems(), *[told] * few]


class Kto(Optimizer):
    """TRL's KTO trainer on tokens of ours."""

    reads = (Preference, Scored)
    makes = "policy"

    config: KtoConfig

    def problems(self, context: FileContext) -> list[str]:
        """What would go wrong, before any work."""
        return lora_problems(context.model_config)

    def update(self, training: TrainingSet, context: TrainingContext) -> Mapping[str, float]:
        """Train and save.

        Figures, over the last 20 % of the steps: ``loss``; ``reward_accuracy`` (share of answers on their side of the
        KL divergence: desirable ones above, undesirable ones below); ``chosen_change``, ``rejected_change``
        (log-probability of a desirable or undesirable answer minus the reference's); ``kl`` (z in nats); ``steps``,
        ``rows`` (answers), ``too_long``; ``desirable_share`` (of the answers, too long ones included); with ``replay``
        also ``replay_loss`` and ``replay_rows``; where prompts are held out, also those of
        :func:`selfreward.plugins.optimizers.holdout.figures`.

        Raises:
            StageError: a pair is no pair, no row fits, all answers are of one kind, there is nothing to replay, or
                training diverged.
        """
        from trl import KTOConfig
        from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

        chat, config = context.start.chat(), self.config
        paired = issubclass(training.row_type, Preference)
        rows = list(_paired(training, chat) if paired else _scored(training, chat, config.threshold))
        collate: Any = DataCollatorForUnpairedPreference(pad_token_id=chat.pad_id)
        replay = open_replay(len(rows), chat, context, config)
        arguments = {
            "beta": config.beta,
            "desirable_weight": config.desirable_weight,
            "undesirable_weight": config.undesirable_weight,
            "precompute_ref_log_probs": True,
            "disable_dropout": False,
            # TRL insists; its reason does not hold here, and our trainer draws the rows as it is told to
            "train_sampling_strategy": "sequential",
        }
        tail, figures = train(
            _trainer_class(config, paired, replay),
            KTOConfig,
            chat,
            rows,
            context,
            config,
            arguments,
            data_collator=replay.numbered(collate) if replay else collate,
            ref_model=reference_model(context),
        )
        figures |= {"reward_accuracy": tail_mean(tail, "rewards/accuracies"), "kl": tail_mean(tail, "kl")}
        figures["desirable_share"] = sum(row["label"] for row in rows) / len(rows)
        for name, kind in (("chosen_change", "desirable"), ("rejected_change", "undesirable")):
            share = tail_mean(tail, f"share/{kind}")
            figures |= {name: tail_mean(tail, f"change/{kind}") / share} if share else {}
        return figures | (replay.figures(tail) if replay else {})


def _paired(pairs: Iterable[Preference], chat: Chat) -> Iterator[dict[str, Any]]:
    for row in pair_rows(pairs, chat):
        for place, answer in enumerate((row["chosen_ids"], row["rejected_ids"])):
            ids = {"prompt_ids": row["prompt_ids"], "completion_ids": answer}
            length, number = len(row["prompt_ids"]) + len(answer), 2 * row["number"] + place
            yield {**ids, "label": not place, "length": length, "number": number, "prompt_id": row["prompt_id"]}


def _scored(answers: Iterable[Scored], chat: Chat, threshold: float) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(answers):
        prompt, answer = chat.encode(row.prompt), answer_ids(chat, row.token_ids, row.completion)
        ids = {"prompt_ids": prompt, "completion_ids": answer}
        length, label = len(prompt) + len(answer), row.score >= threshold
        told = {"number": number, "prompt_id": row.prompt_id, "score": row.score}
        yield {**ids, "label": label, "length": length, **told}


def _check_kinds(rows: Any, config: KtoConfig, paired: bool) -> None:
    """Both kinds of answers must be there.

    Raises:
        StageError: one is not.
    """
    labels = rows["label"]
    if 0 < sum(labels) < len(labels):
        return
    kind = "undesirable" if labels[0] else "desirable"
    if paired:
        why = f"those of the other kind exceed optimizer.max_length={config.max_length}; raise it"
    else:
        scores = rows["score"]
        why = (
            f"their scores go from {min(scores):g} to {max(scores):g} and optimizer.threshold is "
            f"{config.threshold:g}; {'raise' if labels[0] else 'lower'} it, or give the judge more to tell them apart"
        )
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


def _trainer_class(config: KtoConfig, paired: bool, replay: Replay | None) -> type[KTOTrainer]:
    import torch
    from trl import KTOTrainer

    class IdsKTOTrainer(ReplayLoss, FrozenReference, KTOTrainer):
        reference_columns = ("ref_logps", "ref_KL_logps")

        def _prepare_dataset(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
            """The rows are token ids already; what is lent is cut to the longest row, and nobody is trained on it."""
            if name == "train":
                _check_kinds(dataset, config, paired)
            answers, longest = list(dataset["completion_ids"]), max(dataset["length"])
            rooms = [longest - len(prompt) for prompt in dataset["prompt_ids"]]
            lent = zip(partners(list(dataset["prompt_id"])), rooms, strict=True)
            return dataset.add_column("KL_completion_ids", [answers[other][:room] for other, room in lent])

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            self.args.train_sampling_strategy = "group_by_length" if config.group_by_length else "random"
            return super()._get_train_sampler(train_dataset)

        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            """As TRL's, with figures that can be averaged over batches in which a kind is missing."""
            outputs: list[Any] = []

            def heard(**given: Any) -> Any:
                outputs.append(model(**given))
                return outputs[-1]

            loss = super()._compute_loss(heard, inputs, return_outputs)
            metrics = self._metrics["train" if self.model.training else "eval"]
            change = outputs[-1].log_probs.detach().sum(1) - inputs["ref_logps"]
            desirable = inputs["label"].bool()
            right = (change > metrics["kl"][-1]) == desirable
            told = {
                "rewards/accuracies": right,
                "share/desirable": desirable,
                "share/undesirable": ~desirable,
                "change/desirable": change * desirable,
                "change/undesirable": change * ~desirable,
            }
            gathered = self.accelerator.gather(torch.stack([values.float() for values in told.values()], 1))
            for name, values in zip(told, gathered.T, strict=True):
                metrics[name].append(values.mean().item())
            return loss

    IdsKTOTrainer.replay = replay
    return IdsKTOTrainer
