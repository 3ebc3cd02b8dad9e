"""The device: data to features, local training, evaluation, and an outbox that forgets nothing."""
