"""Errors as problem documents (RFC 9457), each with the id of its trace."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from skywalking_background import current_trace_id
from starlette.exceptions import HTTPException

from demo_service.dead_letters import StoreUnavailableError
from demo_service.queues import BrokerUnavailableError
from demo_service.tasks import Refused, release

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI, Request

CONTENT_TYPE = "application/problem+json"


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    where: str
    what: str


class Problem(BaseModel):
    """Why a request was not served."""

    type: str
    title: str
    status: int
    detail: str
    """What to do, in a sentence."""
    trace_id: str | None
    errors: list[FieldError] = []


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe problem documents for OpenAPI."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {CONTENT_TYPE: schema}} for status in statuses
    }


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, errors: list[dict[str, str]] | None = None
) -> JSONResponse:
    """Make the answer that says why a request was not served."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "trace_id": current_trace_id(),
    }
    if errors:
        body["errors"] = errors
    return JSONResponse(body, status, headers, media_type=CONTENT_TYPE)


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  # what it is registered for
    if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:  # the stack of those goes onto the span
        release(error)  # FastAPI's frames keep it in a circle
    return problem(error.status_code, error.detail, error.headers)


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)  # noqa: S101  # what it is registered for
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {"Retry-After": str(error.retry_after_seconds)})


async def _no_broker(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BrokerUnavailableError)  # noqa: S101  # what it is registered for
    seconds = error.retry_after_seconds
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers)


async def _store_unavailable(_request: Request, error: Exception) -> JSONResponse:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # what it is registered for
    # Without the rejected input: it can be huge, and need not even be encodable.
    errors = [
        {"where": _printable(".".join(map(str, item["loc"]))), "what": item["msg"].removeprefix("Value error, ")}
        for item in error.errors()
    ]
    detail = "; ".join(f"{item['where']}: {item['what']}" for item in errors)
    release(error)  # FastAPI's frames keep it in a circle
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def _printable(text: str) -> str:
    """Make a place that the client has named fit for an answer."""
    return text[:200].encode(errors="backslashreplace").decode()


async def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected error; its stack trace is in the trace and the log")


def install_problem_documents(app: FastAPI) -> None:
    """Answer every error of the app with a problem document, and say so in its OpenAPI document."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(BrokerUnavailableError, _no_broker)
    app.add_exception_handler(StoreUnavailableError, _store_unavailable)
    app.add_exception_handler(Exception, _unexpected)
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (FieldError, Problem):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schema.pop("$defs", None)
            schemas[model.__name__] = schema
        return document

    app.openapi = openapi  # type: ignore[method-assign]
