"""The control that knows the truth."""

from selfreward import AnsweredPrompt, Candidate, Prompt
from selfreward.plugins.judges.oracle import Oracle, OracleConfig
from selfreward.testing import Rows, ScriptedContext, check_judge

PROMPT = Prompt.of("Describe a fox.", source="ift")


class Counted(Rows):
    """Truth: one point a word up to five; nobody knows about empty answers."""

    def truth(self, prompt, answer):
        words = answer.split()
        return {"true_score": min(5, len(words)), "on_topic": float(prompt.text in answer)} if words else None


def test_it_keeps_the_contract_of_judges():
    check_judge(Oracle(OracleConfig()), context=ScriptedContext(data=Counted()))


def test_the_score_is_the_true_score_and_none_where_nobody_knows():
    texts = ["one", "", "one two three", "1 2 3 4 5 6"]
    answers = [Candidate.of(PROMPT, text, k, origin="M1", model="M1") for k, text in enumerate(texts)]
    made = Oracle(OracleConfig()).score([AnsweredPrompt(PROMPT, answers)], ScriptedContext(data=Counted()))
    assert [judgement.score for judgement in made] == [1.0, None, 3.0, 5.0]


def test_data_without_truth_is_refused_with_the_mend():
    [problem] = Oracle(OracleConfig()).problems(ScriptedContext(data=Rows()))
    assert problem == "judge=oracle needs data with a ground truth; data=Rows has none: use judge=llm_cot"
    assert Oracle(OracleConfig()).problems(ScriptedContext(data=Counted())) == []
