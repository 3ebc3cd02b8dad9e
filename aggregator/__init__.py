"""The aggregator: rounds, FedAvg over spooled updates, the model registry, the log."""
