"""The page at the end of a run: figures, plots, and a sample of what was written, judged and trained on."""
