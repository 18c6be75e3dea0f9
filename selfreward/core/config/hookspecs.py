"""The hooks: one per kind of plugin, and the lifecycle.

A package adds plugins with an entry point in the group ``selfreward`` that names a module of hook implementations::

    [project.entry-points.selfreward]
    my_package = "my_package.plugin"

A registration hook returns :class:`selfreward.Plugin` records and nothing else; it is called once, while plugins are
collected, so keep its module free of heavy imports. Names are unique per kind: two packages that provide the same name
are an error that names both, never a race.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pluggy

from selfreward.core.contracts.monitors import Event
from selfreward.core.contracts.plugin import Plugin

hookspec = pluggy.HookspecMarker("selfreward")
hookimpl = pluggy.HookimplMarker("selfreward")


@hookspec
def selfreward_prompt_generators() -> Iterable[Plugin]:
    """Prompt generators (stage 1) write new prompts, or read them from data.

    The class gets its config dataclass, which has ``n`` (prompts wanted; None = all there are), and implements
    ``propose(rows, earlier, context)``: one :class:`selfreward.Prompt` or None for every row number. Filters and
    duplicates are not its business.

    Example::

        class Shout(PromptGenerator):
            def propose(self, rows, earlier, context):
                seeds = context.data.split("ift", context.run_seed)
                for row in rows:
                    yield Prompt.of(seeds[row % len(seeds)].prompt.text.upper(), source="shout")

        @hookimpl
        def selfreward_prompt_generators():
            return [Plugin("shout", "my_package.shout:Shout", ShoutConfig, source="")]
    """


@hookspec
def selfreward_samplers() -> Iterable[Plugin]:
    """Samplers (stage 2) write candidates. ``sample(prompts, context)`` yields all candidates of one prompt together.

    A stage with ``uses_model = True`` runs the model that its config's ``model: str = role("policy")`` names, or the
    policy; ``role`` has it checked, before any work, that somebody plays that role.

    Example::

        class Greedy(Sampler):
            uses_model = True

            def sample(self, prompts, context):
                how = Sampling(temperature=0.0, max_new_tokens=self.config.max_new_tokens)
                requests = [Request(p.messages, how, context.seed(p.prompt_id)) for p in prompts]
                for prompt, [reply] in zip(prompts, context.generate(requests)):
                    yield Candidate.of(prompt, reply.text, 0, origin="greedy", model=context.model,
                                       token_ids=reply.token_ids, finish_reason=reply.finish_reason, seed=reply.seed)

        @hookimpl
        def selfreward_samplers():
            return [Plugin("greedy", "my_package.greedy:Greedy", GreedyConfig, source="")]
    """


@hookspec
def selfreward_judges() -> Iterable[Plugin]:
    """Judges (stage 3) score candidates. ``score(answered, context)`` yields one judgement per candidate, in order.

    A verdict that cannot be read is a None in ``votes``; without a readable vote ``score`` is None, never a number.
    A judge that runs a model sets ``uses_model = True`` and has ``model: str = role("policy")`` in its config;
    ``asks()`` says by which rubric it asks, and how much.

    Example::

        class Keyword(Judge):
            def score(self, answered, context):
                for group in answered:
                    for c in group.candidates:
                        score = float(self.config.word in c.text)
                        yield Judgement(c.candidate_id, "keyword", "-", "-", [score], score, [""])

        @hookimpl
        def selfreward_judges():
            return [Plugin("keyword", "my_package.keyword:Keyword", KeywordConfig, source="")]
    """


@hookspec
def selfreward_metrics() -> Iterable[Plugin]:
    """Text metrics give an answer a number; ``judge=metric`` makes it the score: any metric as reward.

    The class is called with the prompt, the answer and the human answers to that prompt, and gives a number, the higher
    the better, or None where it cannot tell. ``needs_references = True``: never called without a human answer. A metric
    is no group of its own: it is named in the judge's options, ``judge=metric judge.metrics=[sentence_length]``.

    Example::

        class SentenceLength(TextMetric):
            def __call__(self, prompt, answer, references):
                sentences = [each for each in answer.split(".") if each.strip()]
                words = len(answer.split())
                return -abs(words / len(sentences) - self.config.words) if sentences else None

        @hookimpl
        def selfreward_metrics():
            return [Plugin("sentence_length", "my_package.style:SentenceLength", SentenceLengthConfig, source="")]
    """


@hookspec
def selfreward_selectors() -> Iterable[Plugin]:
    """Selectors (stage 4) turn the judged candidates of one prompt into training rows.

    The class implements ``select(judged) -> Iterator[row]``, pure and deterministic; ``writes`` names the row type, and
    ``partner`` of the registration the optimizer that is brought along when only the selector is named.

    Example::

        class BestWorst(Selector):
            writes = Preference

            def select(self, judged):
                ranked = judged.finished_by_score()
                if len(ranked) > 1 and ranked[0].score - ranked[-1].score > self.config.margin:
                    yield Preference.of(judged.prompt, chosen=ranked[0], rejected=ranked[-1])

        @hookimpl
        def selfreward_selectors():
            return [Plugin("best_worst", "my_package.best_worst:BestWorst", BestWorstConfig,
                           source="arXiv:2401.10020 §2.3", partner="dpo")]
    """


@hookspec
def selfreward_optimizers() -> Iterable[Plugin]:
    """Optimizers (stage 5) train the next model. ``reads`` names the row type they take, ``makes`` what comes out.

    ``update(training, context)`` trains from ``context.start``, saves a checkpoint (safetensors, config, tokenizer)
    into ``context.out`` and returns figures. It is never called with an empty training set.

    With ``reads = Instruction`` it is trained on prompts alone and makes its own answers: ``context.rollouts`` samples
    with the weights it is given, and has the answers scored by the round's judge, whichever it is. With ``makes =
    "reward"`` what it saves is a sequence classifier that takes the role ``reward``.

    Example::

        class Copy(Optimizer):
            reads = Preference

            def update(self, training, context):
                shutil.copytree(context.start.path, context.out, dirs_exist_ok=True)
                return {"rows": len(training)}

        @hookimpl
        def selfreward_optimizers():
            return [Plugin("copy", "my_package.copy:Copy", CopyConfig, source="", partner="best_worst")]
    """


@hookspec
def selfreward_prompt_filters() -> Iterable[Plugin]:
    """Prompt filters drop prompts: ``reason(prompt)`` gives a word or two why, or None to keep it.

    ``begin(existing)`` is given the seed prompts, ``held_out(prompts)`` those of the evaluation sets, ``kept(prompt)``
    every prompt that passed all filters.

    Example::

        class NoQuestion(Filter):
            def reason(self, prompt):
                return "a question" if prompt.text.endswith("?") else None

        @hookimpl
        def selfreward_prompt_filters():
            return [Plugin("no_question", "my_package.no_question:NoQuestion", NoQuestionConfig, source="")]
    """


@hookspec
def selfreward_candidate_filters() -> Iterable[Plugin]:
    """Candidate filters drop candidates before they are judged: ``reason(candidate)``, as for prompts.

    Example::

        class NoRefusal(Filter):
            def reason(self, candidate):
                return "refusal" if candidate.text.startswith("I cannot") else None

        @hookimpl
        def selfreward_candidate_filters():
            return [Plugin("no_refusal", "my_package.no_refusal:NoRefusal", NoRefusalConfig, "arXiv:2305.13735")]
    """


@hookspec
def selfreward_pair_filters() -> Iterable[Plugin]:
    """Pair filters drop training rows after selection: ``reason(row)``, as for prompts.

    Example::

        class LongerWins(Filter):
            def reason(self, pair):
                longer = len(pair.chosen[-1]["content"]) > len(pair.rejected[-1]["content"])
                return None if longer else "chosen is shorter"

        @hookimpl
        def selfreward_pair_filters():
            return [Plugin("longer_wins", "my_package.longer_wins:LongerWins", LongerWinsConfig, "arXiv:2305.13735")]
    """


@hookspec
def selfreward_evaluators() -> Iterable[Plugin]:
    """Evaluators measure a model; they train nothing. ``evaluate(context)`` yields :class:`selfreward.Metric` records.

    ``context.answers`` holds the model's answers to the held-out prompts; ``context.generate`` runs it on more.
    ``figures`` and ``plots`` say how people are shown the metrics; what is not declared is shown by its name.

    Example::

        class Length(Evaluator):
            uses_model = False
            figures = (Figure("mean", "Answer length, characters", "{:.0f}", row="answer length"),)
            plots = (Plot("Length", "Characters, mean over held-out prompts", ("mean",), from_zero=True),)

            def evaluate(self, context):
                sizes = [len(a.candidates[0].text) for a in context.answers]
                yield Metric(context.model, "length", "mean", sum(sizes) / len(sizes), None, None, len(sizes))

        @hookimpl
        def selfreward_evaluators():
            return [Plugin("length", "my_package.length:Length", LengthConfig, source="")]
    """


@hookspec
def selfreward_monitors() -> Iterable[Plugin]:
    """Monitors watch a run and change nothing: health gates, trackers, reports (:class:`selfreward.Monitor`).

    A monitor is told of the same events as the lifecycle hooks below, and has options: ``monitors.<name>.<option>``.

    Example::

        class Patience(Monitor):
            def iteration_finished(self, event):
                for m in event.metrics:
                    if m.metric == "win" and m.value < self.config.least:
                        yield Finding(Severity.stop, f"{event.model} wins {m.value:.0%} only")

        @hookimpl
        def selfreward_monitors():
            return [Plugin("patience", "my_package.patience:Patience", PatienceConfig, source="")]
    """


@hookspec
def selfreward_recipes() -> Iterable[Plugin]:
    """Recipes say which rounds come before the loop and how often it runs.

    ``rounds(loop, iterations, data)`` yields :class:`selfreward.Round` records in order; each names the model it makes.

    Example::

        class LoopOnly(Recipe):
            def rounds(self, loop, iterations, data):
                for t in range(1, iterations + 1):
                    yield loop.at(t, makes=f"M{t}")

        @hookimpl
        def selfreward_recipes():
            return [Plugin("loop_only", "my_package.loop_only:LoopOnly", LoopOnlyConfig, source="")]
    """


@hookspec
def selfreward_data() -> Iterable[Plugin]:
    """Data: seed prompts, human answers, held-out sets, and a ground truth where there is one.

    Example::

        class Haiku(Data):
            def files(self):
                return [Path(self.config.path)]

            def split(self, name, seed):
                lines = Path(self.config.path).read_text().splitlines()
                half = lines[::2] if name == "ift" else lines[1::2] if name == "evaluation" else []
                return [AnsweredPrompt(Prompt.of(line, source=name), []) for line in half]

        @hookimpl
        def selfreward_data():
            return [Plugin("haiku", "my_package.haiku:Haiku", HaikuConfig, source="")]
    """


@hookspec
def selfreward_models() -> Iterable[Plugin]:
    """Models: where the base checkpoint is. The config dataclass extends :class:`selfreward.ModelConfig`.

    Example::

        class Shared(Model):
            def path(self):
                return f"/models/{self.config.size}"

        @hookimpl
        def selfreward_models():
            return [Plugin("shared", "my_package.shared:Shared", SharedConfig, source="")]
    """


@hookspec
def selfreward_engines() -> Iterable[Plugin]:
    """Engines run a model: ``open``, ``generate``, ``likelihoods``, ``close`` (:class:`selfreward.Engine`).

    ``open`` loads a model, or puts other weights in the place of those that are there. ``generate`` writes: sample
    ``k`` draws from a stream seeded ``seed + k``; a stop text ends a reply and is cut from its text, its tokens stay in
    ``token_ids``; every engine knows ``choices``, and refuses a ``regex`` by name where it cannot hold a reply to one.
    ``likelihoods`` gives log-probabilities at temperature 1, unfiltered. The module of :class:`selfreward.Engine` says
    it in full.

    Example::

        class Parrot(Engine):
            def open(self, model):
                self.chat = model.chat()

            def generate(self, requests, finished=lambda rows: None):
                said = [r.messages[-1]["content"] for r in requests]
                return [[Completion(s, self.chat.encode_reply(s), "stop", r.seed + k) for k in range(r.n)]
                        for r, s in zip(requests, said)]

            def likelihoods(self, requests, finished=lambda rows: None):
                spelled = [[self.chat.encode_reply(reply) for reply in r.replies] for r in requests]
                return [[Likelihood(ids, [0.0] * len(ids)) for ids in replies] for replies in spelled]

            def close(self):
                self.chat = None

        @hookimpl
        def selfreward_engines():
            return [Plugin("parrot", "my_package.parrot:Parrot", ParrotConfig, source="")]
    """


@hookspec
def selfreward_conf() -> Path:
    """A folder of YAML files that joins the config search path: group folders, ``experiment/``, ``rubric/``.

    Example::

        @hookimpl
        def selfreward_conf():
            return Path(__file__).parent / "conf"
    """


@hookspec
def selfreward_run_started(event: Event) -> None:
    """The config is valid and work begins.

    Example::

        @hookimpl
        def selfreward_run_started(event):
            tracker.start(event.run_dir.name, event.config)
    """


@hookspec
def selfreward_stage_finished(event: Event) -> None:
    """A stage's artifact is complete, computed or reused.

    Example::

        @hookimpl
        def selfreward_stage_finished(event):
            tracker.log({f"{event.round}/{event.stage}/{k}": v for k, v in event.figures.items()})
    """


@hookspec
def selfreward_iteration_finished(event: Event) -> None:
    """A model has been made and measured; ``event.metrics`` are its figures.

    Example::

        @hookimpl
        def selfreward_iteration_finished(event):
            tracker.log({m.metric: m.value for m in event.metrics}, step=event.iteration)
    """


@hookspec
def selfreward_run_finished(event: Event) -> None:
    """Everything is done and ``metrics.json`` is written.

    Example::

        @hookimpl
        def selfreward_run_finished(event):
            tracker.finish()
    """


@hookspec
def selfreward_run_failed(event: Event) -> None:
    """The run ends with an error; what was finished stays in the store.

    Example::

        @hookimpl
        def selfreward_run_failed(event):
            tracker.finish(failed=event.error)
    """
