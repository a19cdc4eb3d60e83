"""Requests that Schemathesis makes up from the OpenAPI document, sent to a real service."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
import schemathesis
from harness import Server, serve
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemathesis import Case
    from schemathesis.checks import CheckFunction
    from schemathesis.core.transport import Response
    from schemathesis.hooks import HookContext
    from schemathesis.schemas import BaseSchema

OPERATIONS = (
    "GET /test",
    "GET /test/blocking",
    "GET /test/celery",
    "GET /test/create-task",
    "GET /test/process",
    "GET /test/queue",
    "GET /test/threading",
    "GET /plain",
    "POST /action",
    "POST /complex-action",
    "POST /process",
    "GET /tasks",
    "GET /tasks/{task_id}",
    "GET /dead-letters",
    "POST /tasks/{task_id}/cancel",
    "DELETE /dead-letters",
    "POST /dead-letters/replay",
    "GET /jobs",
    "POST /jobs/{name}/pause",
    "POST /jobs/{name}/resume",
    "GET /faults",
    "PUT /faults",
    "DELETE /faults",
    "GET /alarms",
    "POST /alarms",
    "POST /profiles",
    "POST /dead-letters/{task_id}/replay",
    "DELETE /dead-letters/{task_id}",
    "GET /health/live",
    "GET /health/ready",
)
NEED_BROKER = {"GET /test/celery", "GET /test/queue"}  # which is not here: they answer 503, as documented
LIMITS = settings(
    max_examples=275, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
SENT: Counter[str] = Counter()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service whose tasks are short, with no OAP to report to."""
    folder = tmp_path_factory.mktemp("openapi")
    environment = {"FAULTS_ENABLED": "true", "TASK_SECONDS": "0", "ATTEMPT_SECONDS": "0.2", "DATA_DIR": str(folder)}
    variables: dict[str, Any] = {f"SERVICE_{name}": value for name, value in environment.items()}
    name = f"openapi-{uuid4().hex[:6]}"
    with serve(folder, name, "127.0.0.1:1", module="demo_service", health="/health/ready", **variables) as found:
        yield found


@pytest.fixture(scope="module")
def document(server: Server) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], _kwargs: dict[str, object]) -> None:
    """Leave out what would only take time, or end the service as it was asked to."""
    with suppress(KeyError, TypeError, ValueError):
        query: dict[str, Any] = case.query or {}
        if 0 < float(query["duration"]) <= 60:
            query["duration"] = 0.001
    body: Any = case.body
    if isinstance(body, dict) and isinstance(body.get("faults"), list):  # of the fault board
        body["faults"] = ["delay=1ms" if fault == "exit" else fault for fault in body["faults"]]
    headers: Any = case.headers or {}
    if headers.get("X-Fault") == "exit":
        del headers["X-Fault"]
    for name in [name for name in headers if name.lower() in {"content-length", "transfer-encoding"}]:
        del headers[name]  # a wrong one is no request of this operation, but of none


@schemathesis.hook
def after_call(_context: HookContext, case: Case[Any], response: Response) -> None:
    if response.status_code != 503 or case.operation.label not in NEED_BROKER:
        SENT[str(response.status_code)] += 1


@pytest.mark.parametrize(
    ("label", "mode"),
    [(label, GenerationMode.POSITIVE) for label in OPERATIONS]
    + [
        (label, GenerationMode.NEGATIVE)
        for label in OPERATIONS
        if "health" not in label and label not in {"GET /jobs", "GET /alarms", "GET /faults", "DELETE /faults"}
    ],  # they take nothing
)
def test_an_operation_answers_as_documented(document: BaseSchema, label: str, mode: GenerationMode) -> None:
    method, path = label.split()

    @given(case=document[path][method].as_strategy(generation_mode=mode))
    @LIMITS
    def check(case: Case[Any]) -> None:
        # A key may have been used before, not all that an id must not be can be written down in a JSON schema, and a
        # deletion of all letters must be meant.
        excluded: list[CheckFunction] = []
        if method == "POST" or label == "DELETE /dead-letters" or label in NEED_BROKER:
            excluded.append(positive_data_acceptance)
        if label in NEED_BROKER:
            excluded.append(not_a_server_error)
        if label == "POST /alarms":  # bodies that are too long get 413, which Schemathesis does not know
            excluded.append(negative_data_rejection)
        case.call_and_validate(excluded_checks=excluded)

    check()


def test_no_operation_is_left_out(document: BaseSchema) -> None:
    assert {operation.ok().label for operation in document.get_all_operations()} == set(OPERATIONS)


def test_enough_was_sent_and_the_service_still_serves(server: Server) -> None:
    assert SENT.total() >= 5000
    assert not {status for status in SENT if status.startswith("5")}, SENT
    assert set(SENT) >= {"200", "404", "422"}
    assert httpx.get(f"{server.url}/test", trust_env=False).text == '"ok"'
    assert '"status": 500' not in server.log
    assert "Exception in ASGI application" not in server.log
