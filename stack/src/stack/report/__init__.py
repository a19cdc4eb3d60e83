"""Measuring what the product claims, and writing the report."""

from stack.report.capacity import Measured, Step, measure
from stack.report.command import report

__all__ = ["Measured", "Step", "measure", "report"]
