"""What a record that the reconciler drives (an endpoint, an inference component) must be for a change to be asked of
it (SageMaker API, the states of an endpoint; AWS's words)."""

from __future__ import annotations

from serving.api.control_call import KINDS, ControlCall
from serving.errors import ValidationError
from serving.fleet.endpoints import IN_PROGRESS
from serving.fleet.store import Record


def find(call: ControlCall, kind: str, name: str) -> Record:
    """The record of this name. Raises ``ValidationError``."""
    record = call.session.get(kind, name)
    if record is None:
        raise call.could_not_find(kind, name)
    return record


def refuse_in_progress(call: ControlCall, record: Record) -> None:
    """Raises ``ValidationError`` while the last change is still being made."""
    if record.status in IN_PROGRESS:
        noun = KINDS[record.kind][1]
        raise ValidationError(f'Cannot update in-progress {noun} "{call.arn(record.kind, record.name)}".')


def settled(call: ControlCall, kind: str, name: str) -> Record:
    """The record, ready for a change. Of a Failed one nothing but its deletion may be asked. Raises
    ``ValidationError``."""
    record = find(call, kind, name)
    refuse_in_progress(call, record)
    if "Serving" not in record.body:
        raise ValidationError(
            f'Cannot update {KINDS[kind][1]} "{call.arn(kind, record.name)}" in status {record.status}; delete it and '
            "create it anew."
        )
    return record
