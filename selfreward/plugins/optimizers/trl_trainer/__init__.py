"""Training through TRL: it brings the losses, the Hugging Face ``Trainer`` the loop (accumulation, FSDP, DeepSpeed).

What is ours:

- **tokens**: rows reach the trainer as ids; TRL tokenises nothing.
- **silence**: no telemetry, no progress bars, no reports; progress goes to ``context.progress``.
- **resume**: killed at any moment and started again, training goes on from the last whole checkpoint in
  ``context.work`` and ends as if undisturbed, on a CPU in float32 to the bit. Weights, AdamW's moments, the schedule,
  random states and logs are in the checkpoint; the reference's log-probabilities are computed again; the order of the
  rows is drawn from seed and epoch alone, as the trainer would otherwise draw it from random states that have moved on.
"""
