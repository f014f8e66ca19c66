"""What happens to a model: training, evaluation, checkpoints, memory."""
