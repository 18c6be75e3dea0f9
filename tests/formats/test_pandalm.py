"""PandaLM: who must agree, and responses that are booleans."""

from __future__ import annotations

import pytest

from selfreward.formats.cells import BadRow
from selfreward.formats.pandalm import comparison, label

ROW = {"instruction": " Do ", "input": "\nthis", "response1": True, "response2": ""}


@pytest.mark.parametrize(
    ("labels", "two", "three"), [((1, 1, 1), 1, 1), ((2, 0, 2), 2, None), ((0, 0, 1), 0, None), ((0, 1, 2), None, None)]
)
def test_the_label_of_as_many_as_must_agree(labels: tuple[int, int, int], two: int | None, three: int | None) -> None:
    row = {f"annotator{k}": said for k, said in enumerate(labels, 1)}
    assert (label(row), label(row, agree=3)) == (two, three)


def test_a_boolean_is_a_text_only_where_that_was_asked_for() -> None:
    with pytest.raises(BadRow, match="'response1' must be text, got bool"):
        comparison(ROW)
    found = comparison(ROW, booleans_as_text=True)
    assert (found.prompt, found.first, found.second) == ("Do\n\nthis", "True", "")
