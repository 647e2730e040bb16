"""Every List* operation of the control API by one table: what it lists, under which key, and what it says of each.

Filters, sorting and paging are one query for all (SageMaker API: 10 a page unless said otherwise, newest first; After
is inclusive, Before exclusive; filter first, then cut pages).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from serving.api.control_call import ControlCall, Outcome
from serving.api.control_registry import package_identity
from serving.api.control_tags import plain_name
from serving.fleet.executions import DEFINITIONS
from serving.fleet.store import Query, Record
from serving.fleet.transforms import TRANSFORM


class Listing(NamedTuple):
    """A List* operation. ``filters``: further fields of the query from the call's parameters; None = nothing can
    match."""

    kind: str
    result: str
    summary: Callable[[ControlCall, Record], Mapping[str, Any]]
    filters: Callable[[ControlCall], Mapping[str, Any] | None] = lambda call: {}


def page(call: ControlCall) -> Outcome:
    """One page of the list that ``call.operation`` names."""
    listing = LISTS[call.operation]
    filters = listing.filters(call)
    if filters is None:
        return Outcome({listing.result: []})
    records, token = call.session.find(_query(call.params, listing.kind, filters))
    answer: dict[str, Any] = {listing.result: [listing.summary(call, record) for record in records]}
    return Outcome({**answer, "NextToken": token} if token else answer)


def _query(params: Mapping[str, Any], kind: str, filters: Mapping[str, Any]) -> Query:
    return Query(
        kind,
        sort_by=params.get("SortBy", "CreationTime"),
        descending=params.get("SortOrder", "Descending") == "Descending",
        limit=params.get("MaxResults", 10),
        token=params.get("NextToken", ""),
        name_contains=params.get("NameContains", ""),
        created_after=params.get("CreationTimeAfter"),
        created_before=params.get("CreationTimeBefore"),
        modified_after=params.get("LastModifiedTimeAfter"),
        modified_before=params.get("LastModifiedTimeBefore"),
        status=params.get("StatusEquals", ""),
        **filters,
    )


# --- filters --------------------------------------------------------------------------------------------------------


def _component_filters(call: ControlCall) -> Mapping[str, Any]:
    return {"parent": call.params.get("EndpointNameEquals", ""), "facet": call.params.get("VariantNameEquals", "")}


def _group_filters(call: ControlCall) -> Mapping[str, Any] | None:
    return None if call.params.get("CrossAccountFilterOption") == "CrossAccount" else {}


def _definition_filters(call: ControlCall) -> Mapping[str, Any]:
    return {"parent": call.params.get("EndpointName", "")}


def _package_filters(call: ControlCall) -> Mapping[str, Any] | None:
    """Without a type it is a group's versions if a group is named, else the packages of no group."""
    group = call.params.get("ModelPackageGroupName", "")
    wanted = call.params.get("ModelPackageType", "Versioned" if group else "Unversioned")
    parent = plain_name(call, "model-package-group", group)
    if parent is None:
        return None
    return {
        "parent": parent,
        "facet": call.params.get("ModelApprovalStatus", ""),
        "has_parent": {"Versioned": True, "Unversioned": False, "Both": None}[wanted],
    }


# --- summaries ------------------------------------------------------------------------------------------------------


def _model(call: ControlCall, record: Record) -> Mapping[str, Any]:
    return {"ModelName": record.name, "ModelArn": call.arn("model", record.name), "CreationTime": record.created}


def _endpoint_config(call: ControlCall, record: Record) -> Mapping[str, Any]:
    return {
        "EndpointConfigName": record.name,
        "EndpointConfigArn": call.arn("endpoint-config", record.name),
        "CreationTime": record.created,
    }


def _endpoint(call: ControlCall, record: Record) -> Mapping[str, Any]:
    return {
        "EndpointName": record.name,
        "EndpointArn": call.arn("endpoint", record.name),
        "CreationTime": record.created,
        "LastModifiedTime": record.modified,
        "EndpointStatus": record.status,
    }


def _component(call: ControlCall, record: Record) -> Mapping[str, Any]:
    return {
        "InferenceComponentName": record.name,
        "InferenceComponentArn": call.arn("inference-component", record.name),
        "EndpointName": record.parent,
        "EndpointArn": call.arn("endpoint", record.parent),
        "VariantName": record.facet,
        "CreationTime": record.created,
        "LastModifiedTime": record.modified,
        "InferenceComponentStatus": record.status,
    }


def _group(call: ControlCall, record: Record) -> Mapping[str, Any]:
    return {
        **record.body,
        "ModelPackageGroupArn": call.arn("model-package-group", record.name),
        "CreationTime": record.created,
        "ModelPackageGroupStatus": record.status,
    }


def _package(call: ControlCall, record: Record) -> Mapping[str, Any]:
    return {**record.body, **package_identity(call, record)}


def _transform_job(call: ControlCall, record: Record) -> Mapping[str, Any]:
    return {
        "TransformJobName": record.name,
        "TransformJobArn": call.arn(TRANSFORM, record.name),
        "CreationTime": record.created,
        "LastModifiedTime": record.modified,
        "TransformJobStatus": record.status,
        "TransformEndTime": record.body.get("TransformEndTime"),
        "FailureReason": record.body.get("FailureReason"),
    }


def _job_definition(call: ControlCall, record: Record) -> Mapping[str, Any]:
    return {
        "MonitoringJobDefinitionName": record.name,
        "MonitoringJobDefinitionArn": call.arn(record.kind, record.name),
        "CreationTime": record.created,
        "EndpointName": record.parent,
    }


def _job_definitions(type: str) -> Listing:
    return Listing(DEFINITIONS[type], "JobDefinitionSummaries", _job_definition, _definition_filters)


#: Operation -> its list. The schema leaves of a summary what the operation's summary has.
LISTS: Mapping[str, Listing] = {
    "ListModels": Listing("model", "Models", _model),
    "ListEndpointConfigs": Listing("endpoint-config", "EndpointConfigs", _endpoint_config),
    "ListEndpoints": Listing("endpoint", "Endpoints", _endpoint),
    "ListInferenceComponents": Listing("inference-component", "InferenceComponents", _component, _component_filters),
    "ListTransformJobs": Listing(TRANSFORM, "TransformJobSummaries", _transform_job),
    **{f"List{type}JobDefinitions": _job_definitions(type) for type in DEFINITIONS},
    "ListModelPackageGroups": Listing("model-package-group", "ModelPackageGroupSummaryList", _group, _group_filters),
    "ListModelPackages": Listing("model-package", "ModelPackageSummaryList", _package, _package_filters),
}
