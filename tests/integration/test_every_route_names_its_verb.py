"""No route without a verb: whoever adds one must say who may use it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from app.main import create_app
from core.edge import Allow
from core.settings import Settings

# Answer before anyone is known: liveness, readiness, the pages themselves.
WITHOUT_VERB = {"/livez", "/readyz", "/{path:path}"}


def verbs_of(route: APIRoute) -> set[str]:
    return {
        dependency.call.verb.value
        for dependency in route.dependant.dependencies
        if isinstance(dependency.call, Allow)
    }


def routes_below(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    """Every HTTP route, also those of routers inside routers."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        yield from routes_below(getattr(inner, "routes", ()))


def test_every_route_names_exactly_one_verb(tmp_path: Path) -> None:
    app = create_app(Settings(var_dir=tmp_path))
    routes = list(routes_below(app.routes))
    assert {r.path for r in routes} >= set(app.openapi()["paths"]), "a route escaped the walk"
    assert len(routes) > 50
    nameless = [r.path for r in routes if r.path not in WITHOUT_VERB and len(verbs_of(r)) != 1]
    assert nameless == []
