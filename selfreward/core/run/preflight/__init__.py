"""Before the first token: everything that can be found out without running a model."""
