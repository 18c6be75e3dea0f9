"""Public data formats, read once, for data readers and evaluators alike: files into rows, rows into turns and texts.

What is trained on and what is held out is not told here, and neither is any plugin's option.
"""
