"""Control actions on a real store, without a server: requests checked and answers shaped by AWS's own model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from serving.api.control_actions import ACTIONS
from serving.api.control_call import KINDS, ControlCall
from serving.api.schema import Schema
from serving.config import Settings
from serving.errors import ServingError, ValidationError
from serving.fleet.store import Record, Store
from tests.conform import assert_conforms

ARN = "arn:aws:sagemaker:us-east-1:123456789012:"
URL = "s3://bucket/model.tar.gz"


@cache
def schema() -> Schema:
    """AWS's model of the operations in the table; read once."""
    return Schema.load("sagemaker", ACTIONS)


class Control:
    """Makes calls as the control process does, one transaction each. A second passes between two calls. Every answer
    must be one that botocore's model allows."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.settings = Settings()
        self.now = 1_789_000_000.0
        self.sent_empty: set[str] = set()

    def __call__(self, operation: str, *, trusted: bool = False, region: str = "us-east-1", **params: Any) -> Any:
        """The answer; None is an empty body."""
        checked = schema().check(operation, params, trusted)
        self.now += 1
        with self.store.write() as session:
            call = ControlCall(operation, checked, session, self.settings, region, self.now, lambda name: None, trusted)
            answer = ACTIONS[operation](call).answer
        self.sent_empty |= set(empty_structures(params))
        shaped = schema().shape(operation, answer)
        assert_conforms(operation, "" if shaped is None else shaped, self.sent_empty)
        return shaped

    def refusal(self, operation: str, **params: Any) -> str:
        """What a call that must be refused says (a ``ValidationError``); the store is as it was."""
        return str(self.error(ValidationError, operation, **params))

    def error(self, kind: type[ServingError], operation: str, **params: Any) -> ServingError:
        """The error of a call that must fail; the store is as it was."""
        before = self.everything()
        with pytest.raises(kind) as caught:
            self(operation, **params)
        assert before == self.everything()
        return caught.value

    def everything(self) -> list[tuple[Record, list[tuple[str, str]]]]:
        """All records with their tags."""
        with self.store.read() as session:
            records = [record for kind in KINDS for record in session.every(kind)]
            return [(record, session.tags(record.kind, record.name)) for record in records]

    def add(self, *records: Record) -> None:
        """Records as other parts of the server keep them."""
        with self.store.write() as session:
            for record in records:
                session.add(record)

    # --- shorthand ---

    def model(self, name: str = "m", **container: Any) -> Any:
        """A model of one container."""
        return self("CreateModel", ModelName=name, PrimaryContainer={"ModelDataUrl": URL, **container})

    def package(self, group: str = "g", approval: str = "Approved", **members: Any) -> str:
        """The ARN of a new version in a group that exists."""
        members.setdefault("InferenceSpecification", {"Containers": [{"Image": "i", "ModelDataUrl": URL}]})
        created = self("CreateModelPackage", ModelPackageGroupName=group, ModelApprovalStatus=approval, **members)
        return str(created["ModelPackageArn"])


@contextmanager
def opened(folder: Path) -> Iterator[Control]:
    """On a store of its own."""
    store = Store(f"sqlite:///{folder / 'state.sqlite'}").open()
    try:
        yield Control(store)
    finally:
        store.close()


def empty_structures(value: Any, path: str = "") -> Iterator[str]:
    """Where in a request there is an empty structure, as ``assert_conforms`` writes it."""
    if value == {}:
        yield path
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from empty_structures(inner, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from empty_structures(inner, f"{path}[{at}]")


def without(value: dict[str, Any], *members: str) -> dict[str, Any]:
    """``value`` but for these members."""
    return {name: inner for name, inner in value.items() if name not in members}
