"""Who is in the demonstration: organizations that are made up, their teams, their people, and what each team does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# What a team's work is like; dashboard/demo/work.py says what that means in jobs.
GANGS, TRAINING, SERVING, NIGHTLY, EXPERIMENTS, COURSE = (
    "gangs",
    "training",
    "serving",
    "nightly",
    "experiments",
    "course",
)


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Team:
    """`does` says how much of all work of a kind is this team's: parts of any whole."""

    organization: str
    name: str
    people: tuple[Person, ...]
    does: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Organization:
    """The first person of the first team owns it."""

    name: str
    teams: tuple[Team, ...]

    @property
    def owner(self) -> Person:
        return self.teams[0].people[0]


OPERATOR = Person("Sena Oh", "operator@haein.example")
OPERATIONS = "Cluster operations"
COURSE_TEAM = "Course CS442"

_GIVEN = (
    *("Minji", "Jisoo", "Hana", "Dohyun", "Seojun", "Yuna", "Taeyang", "Nari", "Wonho", "Eunbi", "Jaemin", "Sora"),
    *("Amara", "Lena", "Mateo", "Priya", "Jonas", "Aiko", "Olu", "Ines", "Ravi", "Freya", "Tomas", "Leila"),
)
_FAMILY = (
    *("Kim", "Lee", "Park", "Choi", "Jung", "Kang", "Cho", "Yoon", "Jang", "Lim", "Han", "Shin", "Seo"),
    *("Okafor", "Weber", "Silva", "Nair", "Berg", "Tanaka", "Costa", "Novak", "Haddad", "Moreau"),
)
# (organization, its domain, ((team, how many people, what it does), ...))
_TABLE = (
    (
        "Hanbit Language Lab",
        "hanbit",
        (("Pretraining", 4, {GANGS: 4, TRAINING: 1}), ("Evaluation", 5, {EXPERIMENTS: 5})),
    ),
    (
        "Maru Foundation Models",
        "maru",
        (("Base models", 4, {GANGS: 5}), ("Alignment", 4, {TRAINING: 3, EXPERIMENTS: 2})),
    ),
    ("Dureo Robotics", "dureo", (("Perception", 4, {TRAINING: 4, GANGS: 1}), ("Simulation", 3, {EXPERIMENTS: 3}))),
    ("Narae Speech", "narae", (("Serving", 3, {SERVING: 5}), ("Models", 4, {TRAINING: 3, EXPERIMENTS: 1}))),
    (
        "Onnuri Search",
        "onnuri",
        (("Ranking", 4, {SERVING: 4, NIGHTLY: 3}), ("Embeddings", 3, {NIGHTLY: 2, TRAINING: 1})),
    ),
    ("Seorae Genomics", "seorae", (("Pipelines", 4, {NIGHTLY: 4, TRAINING: 2}),)),
    ("Byeol Vision Institute", "byeol", (("Vision", 6, {EXPERIMENTS: 5, TRAINING: 1}),)),
    ("Haneul Weather", "haneul", (("Forecast", 4, {NIGHTLY: 3, GANGS: 2}),)),
    ("Garam Finance", "garam", (("Risk", 4, {EXPERIMENTS: 3, SERVING: 1}),)),
    ("Solbit Games", "solbit", (("Agents", 4, {EXPERIMENTS: 4, SERVING: 1}),)),
    ("Areum Medical Imaging", "areum", (("Radiology", 4, {TRAINING: 3, SERVING: 2}),)),
    ("Mirinae University", "mirinae", ((COURSE_TEAM, 9, {COURSE: 8}), ("Theses", 5, {COURSE: 2, EXPERIMENTS: 2}))),
)


def _organizations() -> Iterator[Organization]:
    number = 0
    for name, domain, rows in _TABLE:
        teams = []
        for team, count, does in rows:
            people = []
            for _ in range(count):
                # The two lists have no common factor, so that names repeat only after all pairs were used.
                given, family = _GIVEN[number % len(_GIVEN)], _FAMILY[number % len(_FAMILY)]
                email = f"{given}.{family}@{domain}.example".lower()
                people.append(Person(f"{given} {family}", email))
                number += 1
            teams.append(Team(name, team, tuple(people), tuple(does.items())))
        yield Organization(name, tuple(teams))


ORGANIZATIONS = tuple(_organizations())
TEAMS = tuple(team for organization in ORGANIZATIONS for team in organization.teams)
# Whom a visitor may sign in as: somebody who trains, in a team of which much is to be seen.
DEVELOPER = ORGANIZATIONS[0].teams[0].people[1]
