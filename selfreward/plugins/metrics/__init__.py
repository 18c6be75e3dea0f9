"""Text metrics: the numbers that ``judge=metric`` makes a score of."""
