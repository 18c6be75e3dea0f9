"""vLLM, offline."""
