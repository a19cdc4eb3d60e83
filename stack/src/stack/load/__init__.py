"""Loading the service with Locust, and counting the traces of the load."""

from stack.load.command import load
from stack.load.locust import LOCUSTFILE, Load, Request, percentile, read_requests, scenarios, start_locust
from stack.load.memory import draw_memory, growth_mb
from stack.load.meter import Meter, Sample, again_and_again
from stack.load.requests import Sent, send
from stack.load.traces import TraceCount, most_at_once, wait_for_traces

__all__ = [
    "LOCUSTFILE",
    "Load",
    "Meter",
    "Request",
    "Sample",
    "Sent",
    "TraceCount",
    "again_and_again",
    "draw_memory",
    "growth_mb",
    "load",
    "most_at_once",
    "percentile",
    "read_requests",
    "scenarios",
    "send",
    "start_locust",
    "wait_for_traces",
]
