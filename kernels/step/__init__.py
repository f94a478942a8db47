"""What a training step needs besides layers: batches, optimizers, the loss scale."""
