"""Endpoint names: the route's template, never the raw path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Mount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import BaseRoute
    from starlette.types import Scope

# One name for whatever no route matched: a scanner must not fill SkyWalking with an endpoint per guess.
UNMATCHED = "(unmatched)"


def route_template(scope: Scope) -> str:
    """Return the template of the matched route with its prefixes, such as `/tasks/{task_id}`."""
    route = scope.get("route") or _serving(scope)
    if route is None or isinstance(route, Mount):
        # Below a mount: an app that is not Starlette's, or no route of a sub-app.
        return f"{mount}/{{path}}" if (mount := _mount_template(scope)) else UNMATCHED
    path = getattr(route, "path", None)
    # FastAPI keeps the prefix of `include_router` apart from the route in its newer releases.
    effective = scope.get("fastapi", {}).get("effective_route_context")
    if effective is not None and effective.original_route is route:
        path = getattr(effective.starlette_route, "path", None) or effective.path
    if not isinstance(path, str):
        return UNMATCHED
    return _mount_template(scope) + path


def _serving(scope: Scope) -> BaseRoute | None:
    """Find the route that serves the request where Starlette does not note it, as it did not before 1.0."""
    endpoint, router = scope.get("endpoint"), scope.get("router")
    if endpoint is None or router is None:
        return None

    def search(routes: Sequence[BaseRoute]) -> BaseRoute | None:
        for route in routes:
            if getattr(route, "endpoint", None) is endpoint:
                return route
            if found := search(getattr(route, "routes", None) or ()):
                return found
        return None

    return search(router.routes)


def _mount_template(scope: Scope) -> str:
    """Return the template of the mounts around the route; their parameters are known by value only."""
    mounted: str = scope.get("root_path", "").removeprefix(scope.get("app_root_path", scope.get("root_path", "")))
    if not mounted:
        return ""
    names = {str(value): name for name, value in scope.get("path_params", {}).items()}
    return "/".join(f"{{{names[part]}}}" if part in names else part for part in mounted.split("/"))
