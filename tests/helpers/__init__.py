"""What integration tests share: a federation of real processes, a proxy that misbehaves, a device that does."""
