"""HTTP: the endpoints, the limits around them, and the answers to what is wrong."""

from demo_service.http.alarm_routes import router as alarm_router
from demo_service.http.bodies import Refusals
from demo_service.http.connections import LimitedProtocol
from demo_service.http.control_routes import router as control_router
from demo_service.http.descriptors import Descriptors
from demo_service.http.fault_routes import router as fault_router
from demo_service.http.guard import Guard
from demo_service.http.idempotency import Idempotency
from demo_service.http.json_values import MAX_DEPTH, check_json
from demo_service.http.problems import install_problem_documents
from demo_service.http.profile_routes import router as profile_router
from demo_service.http.routes import health, router
from demo_service.http.task_routes import router as task_router
from demo_service.http.task_routes import trace_url
from demo_service.http.unstarted import AbandonUnstarted
from demo_service.http.work_routes import router as work_router

__all__ = [
    "MAX_DEPTH",
    "AbandonUnstarted",
    "Descriptors",
    "Guard",
    "Idempotency",
    "LimitedProtocol",
    "Refusals",
    "alarm_router",
    "check_json",
    "control_router",
    "fault_router",
    "health",
    "install_problem_documents",
    "profile_router",
    "router",
    "task_router",
    "trace_url",
    "work_router",
]
