"""What a model is asked, and what counts as its answer: chat encoding, rubrics, verdicts."""
