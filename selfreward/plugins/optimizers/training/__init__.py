"""What every optimizer that takes gradient steps shares, whoever runs its loop: options, models, rows, checkpoints."""
