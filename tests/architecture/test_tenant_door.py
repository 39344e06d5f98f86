"""Pages and sockets reach a team's rows through one door: `.objects.seen_by(scope)`."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from django.apps import apps

from haein.tenants.models import Owned
from tests.architecture.sources import trees

OWNED = {model.__name__ for model in apps.get_models() if issubclass(model, Owned)}

# What is read below dashboard/ past the door, and why nobody else's rows come out of it. (path, function, model)
PAST_THE_DOOR: dict[tuple[str, str, str], str] = {
    ("dashboard/demo/life.py", "_asked_for", "Job"): "no page: one sum, by which made-up people come sooner or later",
}
# The same for functions that hand out rows of all teams: (path, function, what is called).
ALL_TEAMS = {
    ("dashboard/views/place.py", "_node", "occupancy.of_node"): "a stranger's holdings are shown without name or link",
    ("dashboard/machines.py", "waste", "occupancy.waiting"): "of all teams only to an operator",
    ("dashboard/machines.py", "carvings", "occupancy.carvings"): "what was carved on which device, not for whom",
}


def reads(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """(function, model, what is done with its manager) wherever an owned model's manager is used."""
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"objects", "_default_manager", "_base_manager"}:
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else "?"
            above = parents[node]
            yield _function(node, parents), name, above.attr if isinstance(above, ast.Attribute) else "itself"


def _function(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    while not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
        node = parents[node]
    return "" if isinstance(node, ast.Module) else node.name


def test_no_page_and_no_socket_reads_past_the_door() -> None:
    past = {
        (path, function, model)
        for path, tree in trees("dashboard")
        for function, model, verb in reads(tree)
        if model in OWNED and verb != "seen_by"
    }
    assert past == set(PAST_THE_DOOR)


def test_no_page_writes_a_query_of_its_own() -> None:
    for path, tree in trees("dashboard"):
        raw = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in {"raw", "cursor", "extra"}]
        assert not raw, path


def test_whoever_shows_all_teams_says_why() -> None:
    shown = {
        (path, node.name, called)
        for path, tree in trees("dashboard")
        for node in ast.walk(tree)
        for called in ("occupancy.holdings", "occupancy.of_node", "occupancy.waiting", "occupancy.carvings")
        if isinstance(node, ast.FunctionDef) and f"{called}(" in ast.unparse(node)
    }
    assert shown == set(ALL_TEAMS)


def test_what_belongs_to_a_team_is_known_by_its_path() -> None:
    for model in apps.get_models():
        if issubclass(model, Owned):
            model.objects.filter(**{f"{model.team_path}__in": []})


def test_every_model_that_points_to_a_team_or_to_its_rows_is_owned() -> None:
    people = {"TeamMember"}  # what the door itself is made of
    for model in apps.get_models():
        points = {field.related_model for field in model._meta.fields if field.related_model}
        if any(p.__name__ == "Team" or (isinstance(p, type) and issubclass(p, Owned)) for p in points):
            assert model.__name__ in OWNED | people, model


def test_the_search_sees_what_it_looks_for() -> None:
    tree = ast.parse("def page():\n    return Job.objects.filter(), models.Job.objects.all(), Job.objects\n")
    assert sorted(reads(tree)) == [("page", "Job", "all"), ("page", "Job", "filter"), ("page", "Job", "itself")]
