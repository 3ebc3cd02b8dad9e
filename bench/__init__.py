"""The benchmarks: a federation that trains nothing, and what its rounds and transfers cost."""
