"""Background tasks: what can run, how one runs, and how many do."""

from demo_service.tasks.execution import Execution, Interrupted
from demo_service.tasks.faults import FAULTS, SYNTAX, Fault, InjectedError, parse_fault
from demo_service.tasks.jobs import JOBS, Job, Retry
from demo_service.tasks.recovery import Recovery
from demo_service.tasks.registry import Registry, State, Task
from demo_service.tasks.release import release
from demo_service.tasks.room import Refused, Room

__all__ = [
    "FAULTS",
    "JOBS",
    "SYNTAX",
    "Execution",
    "Fault",
    "InjectedError",
    "Interrupted",
    "Job",
    "Recovery",
    "Refused",
    "Registry",
    "Retry",
    "Room",
    "State",
    "Task",
    "parse_fault",
    "release",
]
