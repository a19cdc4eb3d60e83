"""The ways to run work beside a request, side by side: `make compare` and `make crash`.

Nothing is imported here: `crash_server` runs as a part of its own, and is to stay small.
"""
