"""The runner behind the Makefile: bring the stack up, look at it, prove it, take it down."""
