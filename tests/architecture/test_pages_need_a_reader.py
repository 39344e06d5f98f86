"""Every page is for somebody who is signed in, except those that say why not."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from dashboard import outage
from dashboard.views import people, programs
from tests.architecture.sources import trees
from tests.architecture.test_strangers import routes

WITHOUT_SIGN_IN = {
    outage.alive: "says that the web server answers, and nothing else",
    people.setup: "its link is the key",
    programs.job_schema: "is the same file for everybody",
}


def view_functions() -> dict[str, ast.FunctionDef]:
    """The functions in dashboard/views that a route leads to, by module and name."""
    return {
        f"{path.removesuffix('.py').replace('/', '.')}.{node.name}": node
        for path, tree in trees("dashboard/views")
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def test_every_page_of_ours_asks_who_is_there_before_anything_else() -> None:
    free = {f"{view.__module__}.{view.__name__}" for view in WITHOUT_SIGN_IN}
    functions = view_functions()
    for route in routes():
        view: Any = inspect.unwrap(route.callback)
        name = f"{view.__module__}.{view.__name__}"
        if not name.startswith("dashboard.") or name in free:
            continue
        decorators = [ast.unparse(each) for each in functions[name].decorator_list]
        assert decorators[0] == "login_required", name
        assert decorators[1].startswith("require_"), f"{name} says no method that it answers"


def test_the_exceptions_are_still_there() -> None:
    reached = {inspect.unwrap(route.callback) for route in routes()}
    assert {inspect.unwrap(view) for view in WITHOUT_SIGN_IN} <= reached  # type: ignore[arg-type]
