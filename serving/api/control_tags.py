"""Tags: AddTags, ListTags, DeleteTags, and how every Create* keeps the tags it was sent.

A resource is found by its ARN, ignoring case; the region in it says nothing here, the account must be ours (SageMaker
API, AddTags).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from serving.api.control_call import KINDS, ControlCall, Outcome
from serving.errors import ValidationError
from serving.fleet.store import AlreadyThere, Record

_ARN = re.compile(r"arn:[^:/]*:sagemaker:[^:/]*:(\d{12}):([a-z-]+)/(.+)", re.ASCII | re.IGNORECASE | re.DOTALL)
_KIND_OF_TYPE = {arn_type: kind for kind, (arn_type, _) in KINDS.items()}


# --- names ----------------------------------------------------------------------------------------------------------


def parse_arn(call: ControlCall, arn: str) -> tuple[str, str] | None:
    """(kind, name) that an ARN stands for; None for another service, account or type of resource."""
    found = _ARN.fullmatch(arn)
    if found is None or found[1] != call.settings.account_id:
        return None
    kind = _KIND_OF_TYPE.get(found[2].lower())
    return (kind, found[3]) if kind else None


def plain_name(call: ControlCall, kind: str, name_or_arn: str) -> str | None:
    """The name in a member that takes a name or an ARN; None when the ARN is no resource of this kind and account."""
    if not name_or_arn.lower().startswith("arn:"):
        return name_or_arn
    found = parse_arn(call, name_or_arn)
    return found[1] if found is not None and found[0] == kind else None


# --- what every Create* does ----------------------------------------------------------------------------------------


def keep(call: ControlCall, record: Record) -> None:
    """Add a new record together with the ``Tags`` of the request. Raises ``ValidationError`` for a name that is taken
    and for tags that may not be."""
    pairs = tag_pairs(call.params.get("Tags", ()))
    try:
        call.session.add(record)
    except AlreadyThere:
        raise call.already_exists(record.kind, record.name) from None
    if pairs:
        call.session.put_tags(record.kind, record.name, pairs)


def without_tags(params: Mapping[str, Any]) -> dict[str, Any]:
    """A Create* request as it is kept, and echoed by Describe*: as it was sent, but for the tags."""
    return {member: value for member, value in params.items() if member != "Tags"}


def tag_pairs(tags: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """(key, value) of a request's ``Tags``. Raises ``ValidationError`` for a key given twice or kept for AWS."""
    pairs = [(tag["Key"], tag["Value"]) for tag in tags]
    keys = [key for key, _ in pairs]
    for key in keys:
        if key.lower().startswith("aws:"):
            raise ValidationError(f'Tag key "{key}" is refused: the prefix aws: is reserved.')
        if keys.count(key) > 1:
            raise ValidationError(f'Duplicate tag key "{key}": each key may be given once.')
    return pairs


# --- operations -----------------------------------------------------------------------------------------------------


def add_tags(call: ControlCall) -> Outcome:
    """AddTags: all the tags the resource has then."""
    kind, name = _resource(call)
    call.session.put_tags(kind, name, tag_pairs(call.params["Tags"]))
    return Outcome({"Tags": _tags(call, kind, name)})


def list_tags(call: ControlCall) -> Outcome:
    """ListTags. A page holds at least 50, which is all a resource may have: no token is ever given out."""
    kind, name = _resource(call)
    if call.params.get("NextToken"):
        raise ValidationError("The NextToken is not one that ListTags has answered.")
    return Outcome({"Tags": _tags(call, kind, name)})


def delete_tags(call: ControlCall) -> Outcome:
    """DeleteTags: keys that are not there are no error."""
    kind, name = _resource(call)
    call.session.drop_tags(kind, name, call.params["TagKeys"])
    return Outcome({})


def _resource(call: ControlCall) -> tuple[str, str]:
    """(kind, name) of the resource a request names, which exists."""
    arn = call.params["ResourceArn"]
    found = parse_arn(call, arn)
    if found is None:
        raise ValidationError(f'Could not find resource "{arn}".')
    if call.session.get(*found) is None:
        raise call.could_not_find(*found)
    return found


def _tags(call: ControlCall, kind: str, name: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in call.session.tags(kind, name)]
