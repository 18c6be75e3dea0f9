"""The documents that M0 learns from."""

import random

from tools.micro_world import corpus


def test_every_kind_of_document_has_something_to_learn():
    rng = random.Random(0)
    for maker, _ in corpus.MIXTURE:
        document = maker(rng)
        assert any(counts and text for text, counts in document)
