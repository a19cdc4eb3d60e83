"""What can go wrong for reasons outside of this code."""


class OapEmbeddedError(Exception):
    """One sentence that says what is wrong and what to do about it."""
