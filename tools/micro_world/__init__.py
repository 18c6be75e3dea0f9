"""How M0 of the micro world is made: its corpus, its tokenizer and its pre-training. Tools of a checkout, not installed."""
