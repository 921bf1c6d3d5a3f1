"""Who calls: an identity, its roles, and the projects it may use. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service_kit.names import ID_PATTERN, MalformedName, check_id

ALL_PROJECTS = "*"


class Role(StrEnum):
    """What an identity does here; `access_table.py` says which rpcs that takes."""

    VIEWER = "viewer"
    """Looks at datasets, trainings and adapters."""
    TRAINER = "trainer"
    """Brings pictures, trains, imports, exports, downloads and deletes."""
    GENERATOR = "generator"
    """Draws with adapters."""
    OPERATOR = "operator"
    """Everything in its projects; with all projects, what concerns the server as a whole."""


@dataclass(frozen=True)
class Identity:
    """A caller whose token or certificate was found good. `projects`: ids; None means all."""

    name: str
    roles: frozenset[Role]
    projects: frozenset[str] | None

    def may_use(self, project: str) -> bool:
        """Whether a project, by its id, is one of this identity's."""
        return self.projects is None or project in self.projects


def _projects(projects: frozenset[str]) -> frozenset[str]:
    if projects != {ALL_PROJECTS}:
        for project in projects:
            try:
                check_id(project)
            except MalformedName:
                # What was found is not repeated: a secret may stand in the wrong place.
                raise ValueError(f'allowed are ids matching {ID_PATTERN}, or "{ALL_PROJECTS}" alone for all') from None
    return projects


class Grant(BaseModel):
    """Roles and projects as they are written down: in the tokens file, in the claims of a JWT."""

    model_config = ConfigDict(frozen=True)

    roles: frozenset[Role] = Field(min_length=1)
    projects: Annotated[frozenset[str], Field(min_length=1), AfterValidator(_projects)]

    def identity(self, name: str) -> Identity:
        """The identity of that name with this grant."""
        return Identity(name, self.roles, None if ALL_PROJECTS in self.projects else self.projects)
