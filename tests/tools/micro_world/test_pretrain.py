"""How M0 is made: the shipped weights are what the log says, and the same command gives the same bytes."""

import hashlib
import re
from pathlib import Path

import pytest

import selfreward.plugins.micro
from tools.micro_world import pretrain, tokenizer
from tools.micro_world.pretrain import (
    PretrainConfig,
    Row,
    bucket_by_length,
    learning_rate,
    pretrain_in_processes,
)

M0 = Path(selfreward.plugins.micro.__file__).parent / "m0"
LOG = Path(pretrain.__file__).with_name("pretrain.log")


def test_the_weights_are_those_of_the_log():
    logged = re.search(r"^sha256=(\w+) file=model\.safetensors$", LOG.read_text(), re.MULTILINE)
    assert logged
    assert logged[1] == hashlib.sha256((M0 / "model.safetensors").read_bytes()).hexdigest()


def test_the_tokenizer_is_the_one_that_the_code_builds():
    from transformers import AutoTokenizer

    shipped = AutoTokenizer.from_pretrained(M0)
    built = tokenizer.build_tokenizer()
    assert shipped.get_vocab() == built.get_vocab()
    assert shipped.chat_template == built.chat_template


def test_buckets_keep_every_row_within_the_budget():
    rows = [Row([0] * length, [True] * length) for length in (3, 9, 1, 7, 7, 2, 8, 30)]
    buckets = bucket_by_length(rows, tokens=20)
    assert sorted(len(row.ids) for bucket in buckets for row in bucket) == [1, 2, 3, 7, 7, 8, 9, 30]
    assert all(len(bucket) == 1 or len(bucket) * max(len(row.ids) for row in bucket) <= 20 for bucket in buckets)


def test_the_learning_rate_warms_up_stays_and_falls():
    config = PretrainConfig(steps=1000, warmup_steps=50, lr=1.0, flat_share=0.3, lr_floor=0.02)
    assert learning_rate(config, 0) == pytest.approx(0.02)
    assert learning_rate(config, 200) == 1.0
    assert learning_rate(config, 650) == pytest.approx(0.5)
    assert learning_rate(config, 999) == pytest.approx(0.02)


def test_pretraining_twice_gives_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        pretrain_in_processes(PretrainConfig(steps=10), tmp_path / name)
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name
