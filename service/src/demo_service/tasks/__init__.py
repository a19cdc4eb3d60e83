"""Background tasks: what can run, how one runs, and how many do."""

from demo_service.tasks.execution import Execution, Interrupted
from demo_service.tasks.fault_board import FaultBoard, Rule
from demo_service.tasks.faults import BOARD, FAULTS, SYNTAX, Fault, InjectedError, parse_fault
from demo_service.tasks.jobs import JOBS, Job, Retry
from demo_service.tasks.letters import letter_of
from demo_service.tasks.loose_tasks import LooseTasks
from demo_service.tasks.recovery import Recovery
from demo_service.tasks.registry import Registry, State, Task
from demo_service.tasks.release import release
from demo_service.tasks.room import Refused, Room
from demo_service.tasks.work import Threads, Work, compute, do, log, log_failed_attempt, wait_or_compute

__all__ = [
    "BOARD",
    "FAULTS",
    "JOBS",
    "SYNTAX",
    "Execution",
    "Fault",
    "FaultBoard",
    "InjectedError",
    "Interrupted",
    "Job",
    "LooseTasks",
    "Recovery",
    "Refused",
    "Registry",
    "Retry",
    "Room",
    "Rule",
    "State",
    "Task",
    "Threads",
    "Work",
    "compute",
    "do",
    "letter_of",
    "log",
    "log_failed_attempt",
    "parse_fault",
    "release",
    "wait_or_compute",
]
