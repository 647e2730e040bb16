"""Tags of alarms. (Alarms are all that has tags here.)"""

from __future__ import annotations

from serving.api.control_call import ControlCall, Outcome
from serving.errors import InvalidParameterValue, ResourceNotFound
from serving.fleet import alarm_records
from serving.fleet.alarm_records import ALARM


def tag(call: ControlCall) -> Outcome:
    """TagResource."""
    pairs = [(tag["Key"], tag["Value"]) for tag in call.params["Tags"]]
    call.session.put_tags(ALARM, _record(call), pairs)
    return Outcome({})


def untag(call: ControlCall) -> Outcome:
    """UntagResource."""
    call.session.drop_tags(ALARM, _record(call), call.params["TagKeys"])
    return Outcome({})


def list_tags(call: ControlCall) -> Outcome:
    """ListTagsForResource."""
    tags = call.session.tags(ALARM, _record(call))
    return Outcome({"Tags": [{"Key": key, "Value": value} for key, value in tags]})


def _record(call: ControlCall) -> str:
    """The record behind the call's ARN."""
    parts = call.params["ResourceARN"].split(":", 6)
    if len(parts) != 7 or parts[0] != "arn" or parts[2] != "cloudwatch" or parts[5] != "alarm":
        raise InvalidParameterValue("The parameter ResourceARN is not the ARN of an alarm.")
    if alarm_records.get(call.session, parts[6]) is None:
        raise ResourceNotFound(f"Unknown alarm: {parts[6]}.")
    return alarm_records.key(parts[6])
