"""Another package that also has a judge called haiku."""

from dataclasses import dataclass

from selfreward import Judge, Judgement, Plugin, hookimpl


@dataclass
class HaikuConfig:
    """Options of ``judge=haiku``."""

    lines: int = 3
    """Lines a haiku has."""


class Haiku(Judge):
    """Counts lines."""

    def score(self, answered, context):
        """One judgement per candidate."""
        for group in answered:
            for candidate in group.candidates:
                score = float(candidate.text.count("\n") + 1 == self.config.lines)
                yield Judgement(candidate.candidate_id, "haiku", "-", "-", [score], score, [""])


@hookimpl
def selfreward_judges():
    """The judge."""
    return [Plugin("haiku", "selfreward_clashing:Haiku", HaikuConfig)]
