"""Rows: what they are called, how they are stored, and which answers may be trained on."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.core.contracts.evaluation import Metric
from selfreward.core.contracts.records import (
    TRAINING_ROWS,
    Candidate,
    Demonstration,
    Instruction,
    JudgedPrompt,
    Judgement,
    Preference,
    Prompt,
    Record,
    Scored,
    ScoredCandidate,
    digest,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)  # UTF-8 has no lone surrogates
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT}),
    min_size=1,
    max_size=3,
)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
SCORE = st.floats(0, 5)
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "str": TEXT,
    "int": INTEGERS,
    "int | None": st.none() | INTEGERS,
    "float": SCORE,
    "float | None": st.none() | SCORE,
    "list[str]": st.lists(TEXT, max_size=3),
    "list[int]": st.lists(st.integers(0, 2**31 - 1), max_size=5),
    "list[float | None]": st.lists(st.none() | SCORE, max_size=3),
    "list[Message]": MESSAGES,
}
RECORDS = [Prompt, Candidate, Judgement, Preference, Demonstration, Scored, Metric]


def any_row(record: type[Record]) -> st.SearchStrategy[Any]:
    return st.builds(record, **{f.name: BY_TYPE[str(f.type)] for f in dataclasses.fields(record)})


def through_parquet(record: type[Record], rows: list[Any]) -> list[Any]:
    buffer = io.BytesIO()
    pq.write_table(record.table(rows), buffer, compression="zstd")
    return record.rows(pq.read_table(buffer))


# ------------------------------------------------------------------------------------------------------------------ ids


def test_a_prompts_id_is_the_hash_of_its_messages() -> None:
    said = '[[["user","Say ä \\"x\\"."]]]'
    assert Prompt.of('Say ä "x".', "ift").prompt_id == hashlib.sha256(said.encode()).hexdigest()[:16]


def test_the_same_messages_have_the_same_id_wherever_they_come_from() -> None:
    turns = [{"content": "Name a river.", "role": "user"}]
    plain = Prompt.of("Name a river.", "ift")
    assert Prompt.of(turns, "M1", ["a", "b"]).prompt_id == plain.prompt_id
    others = ["Name a river", "name a river.", "Name a river. "]
    system = [{"role": "system", "content": "Name a river."}]
    split = [{"role": "user", "content": "Name"}, {"role": "user", "content": " a river."}]
    ids = {Prompt.of(x, "ift").prompt_id for x in (*others, system, split)} | {plain.prompt_id}
    assert len(ids) == 6


@settings(deadline=None)
@given(st.lists(MESSAGES, max_size=4))
def test_ids_are_equal_just_when_messages_are(conversations: list[list[dict[str, str]]]) -> None:
    ids = [Prompt.of(messages, "ift").prompt_id for messages in conversations]
    for one, messages in zip(ids, conversations, strict=True):
        assert [one == other for other in ids] == [messages == others for others in conversations]


def test_a_prompt_keeps_its_own_copy_of_the_messages() -> None:
    turns = [{"role": "user", "content": "a"}]
    prompt = Prompt.of(turns, "ift")
    turns[0]["content"] = "b"
    assert (prompt.text, prompt.prompt_id) == ("a", Prompt.of("a", "").prompt_id)


def test_equal_answers_are_different_candidates() -> None:
    prompt, other = Prompt.of("a", "ift"), Prompt.of("b", "ift")
    twins = [Candidate.of(prompt, "Yes.", k, origin="M1", model="M1") for k in range(3)]
    elsewhere = [
        Candidate.of(other, "Yes.", 0, origin="M1", model="M1"),
        Candidate.of(prompt, "Yes.", 0, origin="M1+faithful", model="M1"),
        Candidate.of(prompt, "Yes.", 0, origin="M1", model="M2"),
    ]
    assert len({candidate.candidate_id for candidate in twins + elsewhere}) == 6
    again = Candidate.of(prompt, "No.", 0, origin="M1", model="M1", seed=7, token_ids=(1, 2))
    assert again.candidate_id == twins[0].candidate_id
    assert again.token_ids == [1, 2]


def test_a_digest_is_that_of_canonical_json() -> None:
    assert digest({"b": 1, "a": [2, None]}, "ü") == digest({"a": (2, None), "b": 1}, "ü")
    assert digest("ab") != digest("a", "b")
    assert digest(1) != digest("1")
    assert len(digest("x", size=20)) == 20
    assert digest("x", size=20).startswith(digest("x"))


# -------------------------------------------------------------------------------------------------------------- storage


@pytest.mark.parametrize("record", RECORDS)
@settings(deadline=None)
@given(data=st.data())
def test_rows_come_back_from_parquet_as_they_were(record: type[Record], data: st.DataObject) -> None:
    rows = data.draw(st.lists(any_row(record), max_size=4))
    assert through_parquet(record, rows) == rows


@pytest.mark.parametrize("record", RECORDS)
def test_tables_say_what_they_hold(record: type[Record]) -> None:
    buffer = io.BytesIO()
    pq.write_table(record.table([]), buffer)
    schema = pq.read_schema(buffer)
    assert schema.metadata[b"selfreward.record"].decode() == record.__name__
    assert schema.metadata[b"selfreward.schema_version"] == b"1"
    assert schema.names == [f.name for f in dataclasses.fields(record)]
    assert {f.name for f in schema if f.nullable} == {
        f.name for f in dataclasses.fields(record) if str(f.type).endswith("| None")
    }


def test_an_unreadable_vote_stays_none_among_numbers() -> None:
    row = Judgement("c", "llm_cot", "M1", "additive", [None, 0.0, 4.5], None, ["?", "Score: 0", "Score: 4.5"])
    [back] = through_parquet(Judgement, [row])
    assert (back.votes, back.score) == ([None, 0.0, 4.5], None)


@pytest.mark.parametrize(
    "row",
    [
        Candidate.of(Prompt.of("a", "x"), None, 0, origin="o", model="m"),  # type: ignore[arg-type]
        Prompt("id", [{"role": "user"}], "x"),
    ],
)
def test_what_must_be_there_cannot_be_stored_empty(row: Record) -> None:
    with pytest.raises(pa.ArrowInvalid, match="non-nullable"):
        through_parquet(type(row), [row])


PROMPT = Prompt.of(
    [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "狐狸? {x}\n"}], "M1", ["p"]
)
ANSWERS = [Candidate.of(PROMPT, text, k, origin="M1", model="M1", token_ids=[5, k]) for k, text in enumerate("abc")]
ONE_OF_EACH: list[Record] = [
    PROMPT,
    ANSWERS[0],
    Judgement(ANSWERS[0].candidate_id, "llm_cot", "M1", "additive", [4.0, None], 4.0, ["Score: 4", "?"], 2**62),
    Preference.of(PROMPT, ScoredCandidate(ANSWERS[0], 4.0), ScoredCandidate(ANSWERS[1], 1.5)),
    Demonstration.of(PROMPT, ScoredCandidate(ANSWERS[0], 4.0)),
    Scored.of(PROMPT, ScoredCandidate(ANSWERS[1], 0.0)),
]


@pytest.mark.parametrize("row", ONE_OF_EACH, ids=lambda row: type(row).__name__)
def test_datasets_reads_the_shards(row: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    shards = [tmp_path / f"{index:05d}.parquet" for index in range(2)]
    for shard in shards:
        pq.write_table(type(row).table([row, row]), shard, compression="zstd")
    files = [str(shard) for shard in shards]
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == [dataclasses.asdict(row)] * 4  # type: ignore[call-overload]


# -------------------------------------------------------------------------------------------------------- training rows


def test_a_training_row_can_be_traced_and_has_trls_form() -> None:
    pair = Preference.of(PROMPT, ScoredCandidate(ANSWERS[1], 4.0), ScoredCandidate(ANSWERS[0], 1.5))
    assert pair.prompt == PROMPT.messages
    assert (pair.chosen, pair.rejected) == (
        [{"role": "assistant", "content": "b"}],
        [{"role": "assistant", "content": "a"}],
    )
    assert (pair.chosen_id, pair.rejected_id) == (ANSWERS[1].candidate_id, ANSWERS[0].candidate_id)
    assert (pair.chosen_score, pair.rejected_score) == (4.0, 1.5)
    assert (pair.chosen_token_ids, pair.rejected_token_ids, pair.prompt_id) == ([5, 1], [5, 0], PROMPT.prompt_id)
    for kind in (Demonstration, Scored):
        row = kind.of(PROMPT, ScoredCandidate(ANSWERS[1], 3.0))
        assert type(row) is kind
        assert row.completion == [{"role": "assistant", "content": "b"}]
        assert (row.score, row.token_ids, row.candidate_id) == (3.0, [5, 1], ANSWERS[1].candidate_id)


def test_every_training_row_has_a_name_for_people() -> None:
    assert {kind: row.KIND for kind, row in TRAINING_ROWS.items()} == {kind: kind for kind in TRAINING_ROWS}
    assert list(TRAINING_ROWS) == ["preferences", "demonstrations", "scored", "prompts"]
    assert (Preference.UNIT, Scored.UNIT, Instruction.UNIT) == ("pairs", "examples", "prompts")
    for row in TRAINING_ROWS.values():
        assert set(row.CANDIDATES) <= {field.name for field in dataclasses.fields(row)}


# ------------------------------------------------------------------------------------------------------ who may compete


def judged(*rows: tuple[str, str, float | None]) -> JudgedPrompt:
    candidates = [
        Candidate.of(PROMPT, text, k, origin="M1", model="M1", finish_reason=reason)
        for k, (text, reason, _) in enumerate(rows)
    ]
    verdicts = [
        Judgement(c.candidate_id, "j", "M1", "r", [score], score, [""])
        for c, (*_, score) in zip(candidates, rows, strict=True)
    ]
    return JudgedPrompt(PROMPT, candidates, verdicts)


def test_cut_off_empty_and_unscored_answers_never_compete() -> None:
    group = judged(
        ("ok", "stop", 2.0),
        ("cut off", "length", 5.0),
        ("", "stop", 5.0),
        (" \n\t\u00a0", "stop", 5.0),
        ("unread", "stop", None),
        ("zero", "stop", 0.0),
        ("person", "human", 3.0),
    )
    assert [(s.text, s.score) for s in group.finished_by_score()] == [("person", 3.0), ("ok", 2.0), ("zero", 0.0)]
    assert [s.text for s in group.scored()] == ["ok", "cut off", "", " \n\t\u00a0", "zero", "person"]


def test_nobody_left_is_an_empty_list() -> None:
    assert judged().finished_by_score() == []
    assert judged(("a", "stop", None), ("b", "length", 5.0)).finished_by_score() == []


GROUPS = st.lists(
    st.tuples(
        st.sampled_from(["", " ", "a", "b"]),
        st.sampled_from(["stop", "length", "human"]),
        st.none() | st.sampled_from([0.0, 1.0, 2.5, 5.0]),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(GROUPS)
def test_the_order_is_by_score_and_then_as_sampled(rows: list[tuple[str, str, float | None]]) -> None:
    group = judged(*rows)
    fit = [
        (-score, k)
        for k, (text, reason, score) in enumerate(rows)
        if score is not None and reason != "length" and text.strip()
    ]
    ranked = group.finished_by_score()
    assert [s.candidate.candidate_id for s in ranked] == [group.candidates[k].candidate_id for _, k in sorted(fit)]
    assert [s.score for s in ranked] == [-score for score, _ in sorted(fit)]


def test_a_judgement_for_each_candidate_or_nothing() -> None:
    group = judged(("a", "stop", 1.0), ("b", "stop", 2.0))
    with pytest.raises(ValueError, match="shorter"):
        JudgedPrompt(PROMPT, group.candidates, group.judgements[:1]).scored()


def test_rows_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROMPT.source = "x"  # type: ignore[misc]
    assert json.loads(json.dumps(dataclasses.asdict(PROMPT)))["parents"] == ["p"]
