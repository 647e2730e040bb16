"""What the store keeps and how it is asked: the values, and what a session promises. No database is known here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

#: Tags one resource may carry.
MOST_TAGS = 50


class AlreadyThere(Exception):
    """A record of this kind and name, in whatever case, exists."""


class Stale(Exception):
    """The record was changed or removed since it was read."""


class NotThere(Exception):
    """Tags were given to a resource that does not exist."""


@dataclass(frozen=True, slots=True)
class Record:
    """A resource as it should be. Its identity is (kind, name ignoring case); the name keeps the case it was given.

    ``body``: JSON values only. ``created``, ``modified``: epoch seconds. ``parent``: endpoint of a component, group of
    a package version. ``facet``: VariantName of a component, ModelApprovalStatus of a model package. ``revision``
    counts changes: ``Session.change`` compares it."""

    kind: str
    name: str
    body: Mapping[str, Any] = field(hash=False)
    created: float
    modified: float
    status: str = ""
    parent: str = ""
    facet: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Query:
    """A list call: filter first, then cut pages. ``After`` is >=, ``Before`` is <; an empty string or None filters
    nothing. ``name_contains`` minds case, ``parent`` does not. (SageMaker API, the List operations.)"""

    kind: str
    sort_by: Literal["Name", "CreationTime", "Status"] = "CreationTime"
    descending: bool = True
    limit: int = 10
    token: str = ""
    name_contains: str = ""
    created_after: float | None = None
    created_before: float | None = None
    modified_after: float | None = None
    modified_before: float | None = None
    status: str = ""
    parent: str = ""
    facet: str = ""
    has_parent: bool | None = None


class Session(Protocol):
    """One transaction. In a reading one the changing methods are not to be called."""

    def get(self, kind: str, name: str) -> Record | None:
        """The record of this name, in whatever case."""

    def add(self, record: Record) -> None:
        """Keep a new record. Raises ``AlreadyThere``."""

    def add_all(self, records: Iterable[Record]) -> None:
        """Keep many new records at once. Raises ``AlreadyThere``, after which the transaction is lost."""

    def change(
        self,
        record: Record,
        *,
        now: float,
        body: Mapping[str, Any] | None = None,
        status: str | None = None,
        facet: str | None = None,
    ) -> Record:
        """The record with what is given replaced and ``modified`` = now. Raises ``Stale`` unless it is, in the store,
        still what was read."""

    def remove(self, kind: str, name: str) -> bool:
        """Forget a record and its tags. False: there was none."""

    def find(self, query: Query) -> tuple[list[Record], str]:
        """A page and the token of the next ("" = no more). A token serves the kind and order it was made for, whatever
        was added or removed meanwhile; raises ``ValidationError`` for any other."""

    def every(self, kind: str) -> list[Record]:
        """All of a kind, oldest first."""

    def count(self, kind: str, parent: str = "") -> int:
        """How many there are of a kind, or of those with this parent."""

    def next_number(self, sequence: str) -> int:
        """1, 2, 3, ...: never the same again, whatever is removed."""

    def tags(self, kind: str, name: str) -> list[tuple[str, str]]:
        """A resource's tags in the order they were first given."""

    def put_tags(self, kind: str, name: str, pairs: Sequence[tuple[str, str]]) -> None:
        """Add tags; the value of an equal key is overwritten where it stands. Raises ``ValidationError`` for more than
        50 in all, ``NotThere`` for an unknown resource."""

    def drop_tags(self, kind: str, name: str, keys: Sequence[str]) -> None:
        """Remove the tags of these keys, those that are there."""
