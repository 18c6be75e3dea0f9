"""Accuracy on human preferences: the control's published figures, and the parsers of four formats."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import Metric, Plugin, UserError
from selfreward.plugins.evaluators.pair_accuracy import By
from selfreward.plugins.evaluators.preference_accuracy import PreferenceAccuracy, PreferenceAccuracyConfig
from selfreward.plugins.evaluators.preference_pairs import PairFile, ranked_pairs, read_pairs
from selfreward.testing import check_plugin


def measured(context: Any, **options: Any) -> dict[str, Metric]:
    config = PreferenceAccuracyConfig(**options)
    return {metric.metric: metric for metric in PreferenceAccuracy(config).evaluate(context)}


def read(folder: Path, rows: list[Any], **options: Any) -> PairFile:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_pairs(path, **options)


@pytest.mark.parametrize(
    ("file", "options", "percent", "n", "counted"),
    [
        ("hh_rlhf/harmless-base_test.jsonl.gz", {}, 44.6, 2312, {}),
        ("oasst/oasst1_en-validation.jsonl.gz", {}, 68.8, 531, {}),
        ("pandalm/testset-v1.json.gz", {"booleans_as_text": True}, 67.4, 894, {"undecided": 105}),
        ("pandalm/testset-v1.json.gz", {}, 67.8, 888, {"undecided": 105, "rows_left_out": 6}),
    ],
)
def test_the_longer_reply_is_right_as_often_as_published(
    shared_data: Path,
    measuring: Callable[..., Any],
    file: str,
    options: dict[str, Any],
    percent: float,
    n: int,
    counted: dict[str, int],
) -> None:
    context = measuring()
    found = measured(context, path=str(shared_data / file), by=By.length, **options)
    assert (round(100 * found["accuracy"].value, 1), found["accuracy"].n) == (percent, n)
    assert {name: context.counters[name] for name in counted} == counted


def test_transcripts_share_all_but_the_reply(shared_data: Path) -> None:
    path = shared_data / "hh_rlhf/harmless-base_test.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    for row, pair in zip(rows, read_pairs(path).pairs, strict=True):
        roles = [turn["role"] for turn in pair.messages]
        assert roles == (["user", "assistant"] * len(roles))[: len(roles)]
        assert roles[-1] == "user"
        assert row["chosen"].endswith(pair.chosen)
        assert row["rejected"].endswith(pair.rejected)
    assert sum("\n\nAssistant:" in pair.chosen + pair.rejected for pair in read_pairs(path).pairs) == 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
COLUMNS = [
    *("prompt", "instruction", "input", "chosen", "rejected", "category", "response1", "response2"),
    *("annotator1", "annotator2", "annotator3", "message_id", "parent_id", "role", "text", "rank"),
]
GOOD = {"prompt": "?", "chosen": "yes", "rejected": "no"}


@given(rows=st.lists(st.dictionaries(st.sampled_from(COLUMNS), json_values), max_size=6))
def test_rows_of_any_kind_are_read_or_left_out(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    found = read(tmp_path_factory.mktemp("rows"), [GOOD, *rows])
    assert found.pairs[0].chosen == "yes"
    for pair in found.pairs:
        assert pair.messages[-1]["role"] == "user"
        for text in (pair.chosen, pair.rejected, *(turn["content"] for turn in pair.messages)):
            assert text.encode().decode() == text
    assert len(found.left_out) <= len(rows)


def test_plain_rows(tmp_path: Path) -> None:
    user, assistant = {"role": "user", "content": "?"}, {"role": "assistant", "content": "yes"}
    turns = [user, assistant, {"role": "user", "content": "sure?"}]
    rows = [
        GOOD,
        {"prompt": turns, "chosen": [assistant], "rejected": ""},
        {"instruction": "Sum up.", "input": "A text.", "chosen": "a", "rejected": "b", "category": "short"},
        {"instruction": " ", "input": "A text.", "chosen": "a", "rejected": "b"},
        {"prompt": "\n\nHuman: hi\n\nAssistant: ho\n\nHuman: hu\n\nAssistant:", "chosen": "a", "rejected": "b"},
    ]
    pairs = read(tmp_path, rows).pairs
    assert [[m["content"] for m in p.messages] for p in pairs] == [
        ["?"],
        ["?", "yes", "sure?"],
        ["Sum up.\n\nA text."],
        ["A text."],
        ["hi", "ho", "hu"],
    ]
    assert (pairs[1].chosen, pairs[1].rejected, pairs[2].category) == ("yes", "", "short")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "?", "chosen": "a"}, "'chosen' and 'rejected'"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "no text"),
        (
            {"prompt": [{"role": "assistant", "content": "?"}], "chosen": "a", "rejected": "b"},
            "end with a message of the user",
        ),
        ({"prompt": [{"role": "tool", "content": "?"}], "chosen": "a", "rejected": "b"}, "system, user, assistant"),
        ({"prompt": "?", "chosen": True, "rejected": "b"}, "'chosen' must be text, got bool"),
        ({"prompt": "?", "chosen": "\ud800", "rejected": "b"}, "half a character"),
        ({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"}, "share no beginning"),
        ({"chosen": "x\n\nAssistant: a", "rejected": "x\n\nAssistant: b"}, "starts with"),
        ({"annotator1": 3, "annotator2": 3, "annotator3": 3}, "'annotator1' must be 0, 1 or 2, got 3"),
        ({"annotator1": True, "annotator2": 1, "annotator3": 1}, "'annotator1' must be 0, 1 or 2, got True"),
        ({"annotator1": 1, "annotator2": 1}, "'annotator3' is missing"),
        ({"message_id": "m", "role": "assistant", "text": 3}, "'text' must be text"),
        ({"message_id": "m", "role": "assistant", "text": " "}, "'text' is empty"),
        ([], "object is wanted"),
    ],
)
def test_a_bad_row_is_left_out_and_told(tmp_path: Path, row: Any, why: str) -> None:
    found = read(tmp_path, [GOOD, row])
    assert len(found.pairs) == 1
    assert why in found.left_out[0]
    assert "pairs.jsonl:2:" in found.left_out[0]


def test_two_of_three_annotators_decide(tmp_path: Path) -> None:
    row = {"instruction": "?", "input": "", "response1": "one", "response2": "two"}
    labels = [(1, 1, 2), (2, 0, 2), (0, 0, 1), (0, 1, 2)]
    found = read(tmp_path, [row | {f"annotator{k + 1}": label for k, label in enumerate(three)} for three in labels])
    assert [(pair.chosen, pair.rejected) for pair in found.pairs] == [("one", "two"), ("two", "one")]
    assert (found.undecided, found.left_out) == (2, [])


def test_ranked_replies_make_every_ordered_pair(tmp_path: Path) -> None:
    def message(name: str, parent: str | None, rank: int | None = None, **more: Any) -> dict[str, Any]:
        role = "prompter" if parent is None else "assistant"
        return {"message_id": name, "parent_id": parent, "role": role, "text": name, "rank": rank} | more

    rows = [
        *(message("b", "root", 1), message("root", None), message("a", "root", 0), message("c", "root", 1)),
        *(message("gone", "root", 2, deleted=True), message("unranked", "root"), message("deeper", "a", 0)),
    ]
    assert [(p.chosen, p.rejected) for p in read(tmp_path, rows).pairs] == [("a", "b"), ("a", "c")]


def test_trees_and_tables_of_other_forms_are_read_too(tmp_path: Path) -> None:
    replies = [{"message_id": t, "role": "assistant", "text": t, "rank": k} for k, t in enumerate("ab")]
    root = {"message_id": "root", "role": "prompter", "text": "?", "replies": replies}
    assert [(p.chosen, p.rejected) for p in read(tmp_path, [{"prompt": root}]).pairs] == [("a", "b")]
    table = tmp_path / "pairs.csv"
    table.write_text('prompt,chosen,rejected\n?,"yes,\nsir",no\n?,yes\n')
    found = read_pairs(table)
    assert [(p.chosen, p.rejected) for p in found.pairs] == [("yes,\nsir", "no")]
    assert found.left_out == [f"{table}:4: 2 cells, and the header has 3 columns"]


@given(st.lists(st.integers(0, 4), max_size=7))
def test_pairs_of_ranks(ranks: list[int]) -> None:
    pairs = list(ranked_pairs([], [(rank, str(k)) for k, rank in enumerate(ranks)]))
    wanted = {(str(a), str(b)) for a, x in enumerate(ranks) for b, y in enumerate(ranks) if x < y}
    assert sorted((p.chosen, p.rejected) for p in pairs) == sorted(wanted)


def test_without_a_file_the_data_is_asked(measuring: Callable[..., Any], group: Callable[..., Any]) -> None:
    rows = [group("?", "long one", "short", "none", ranks=[0, 1, None]), group("!", "a", "bcd", ranks=[0, 1])]
    found = measured(measuring({"judge_evaluation": rows}), by=By.length, min_items=1)
    assert (found["accuracy"].value, found["accuracy"].n) == (0.5, 2)
    nothing = measured(measuring(), by=By.length)
    assert (nothing["accuracy"].value, nothing["accuracy"].n) == (None, 0)


def test_a_file_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no two replies"):
        read(tmp_path, [{"annotator1": 0, "annotator2": 0, "annotator3": 0}])
    check_plugin(
        Plugin(
            "preference_accuracy",
            "selfreward.plugins.evaluators.preference_accuracy:PreferenceAccuracy",
            PreferenceAccuracyConfig,
        )
    )
