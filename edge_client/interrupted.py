"""The exception that ends work which is no longer wanted. In a file of its own: whoever catches it needs no torch."""


class Interrupted(Exception):
    """`stop()` became true in the middle of training or evaluation."""
