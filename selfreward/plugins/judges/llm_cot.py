"""LLM as a judge: the model reviews an answer by a rubric, thinking aloud, and ends with a score.

score = mean of the readable votes; each vote is one sampled review (3 at T 0.7, top-p 0.9).
Source: arXiv:2401.10020 §2.2 (step 3), figure 2 and §3.1.3.

``constrain``: a review without a readable verdict goes on with the words before the score ("Score:"), and what follows
is drawn among the rubric's numbers, as the review was drawn. It takes a second, short request, and not a regular
expression over the whole review, because that would have to bound the review's length, which cuts thinking short, and
would change the distribution of the reviews that can be read anyway. So it works on every engine, and readable reviews
stay as they are, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from selfreward import Completion, Judgement, Request, Rubric, Sampling, StageContext, option
from selfreward.plugins.judges.review import Asked, ReviewConfig, ReviewJudge, VerdictForm


@dataclass
class LlmCotConfig(ReviewConfig):
    """Options of ``judge=llm_cot``."""

    votes: int = option(3, ge=1)
    """Reviews per answer; the score is their mean."""
    constrain: bool = False
    """Let a review without a readable verdict go on with one of the rubric's numbers, so that every vote counts."""

    def problems(self) -> list[str]:
        """Rules between options."""
        if self.votes > 1 and self.temperature == 0:
            return [f"votes={self.votes} at temperature=0 are all the same: set temperature above 0, or votes=1"]
        return []


@dataclass
class _Review:
    """One review: its words, prefill included, and its vote."""

    request: Request
    reply: Completion
    words: str
    vote: float | None

    @classmethod
    def of(cls, reply: Completion, request: Request, rubric: Rubric) -> _Review:
        vote = rubric.read(reply.text, cut_off=reply.finish_reason == "length")
        return cls(request, reply, rubric.reply_prefix + reply.text, vote)


class LlmCot(ReviewJudge):
    """Asks the model for ``votes`` reviews of each answer."""

    name = "llm_cot"
    config: LlmCotConfig

    @property
    def replies(self) -> int:
        return self.config.votes

    def review(self, asked: Sequence[Asked], rubric: Rubric, context: StageContext) -> Iterator[Judgement]:
        """One judgement per candidate; all reviews of all candidates are one call of the model."""
        c = self.config
        how = Sampling(c.temperature, c.top_p, max_new_tokens=c.max_new_tokens)
        requests = [
            Request(question, how, context.seed(candidate.candidate_id), c.votes, rubric.reply_prefix)
            for candidate, question in asked
        ]
        reviews = [
            [_Review.of(reply, request, rubric) for reply in replies]
            for request, replies in zip(requests, context.generate(requests), strict=True)
        ]
        if c.constrain:
            self._constrain([review for group in reviews for review in group], VerdictForm.of(rubric), context)
        for (candidate, _), request, group in zip(asked, requests, reviews, strict=True):
            votes = [review.vote for review in group]
            readable = [v for v in votes if v is not None]
            yield Judgement(
                candidate.candidate_id,
                self.name,
                context.model,
                rubric.name,
                votes,
                fmean(readable) if readable else None,
                [review.words for review in group],
                request.seed,
            )

    def _constrain(self, reviews: Sequence[_Review], form: VerdictForm, context: StageContext) -> None:
        """Give reviews without a vote one of the rubric's numbers; those that leave no room for it stay without."""
        c = self.config
        how = Sampling(c.temperature, c.top_p, max_new_tokens=form.most_tokens, choices=form.texts)
        # a prompt that left no room for a review leaves none for a score
        unread = [review for review in reviews if review.vote is None and review.reply.token_ids]
        requests = [
            Request(
                review.request.messages,
                how,
                context.seed("constrained", review.reply.seed),
                reply_prefix=form.after(review.words),
            )
            for review in unread
        ]
        for review, request, [reply] in zip(unread, requests, context.generate(requests), strict=True):
            review.vote = form.read(reply.text) if reply.finish_reason == "stop" else None
            if review.vote is not None:
                review.words = request.reply_prefix + reply.text
                context.count(constrained=1)
