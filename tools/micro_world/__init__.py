"""How M0 of the micro world is made: corpus, tokenizer and pre-training. Tools of a checkout, not installed."""
