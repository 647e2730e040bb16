"""The model registry: model package groups, and model packages in them (versions 1, 2, ...) or on their own.

A version's record is named ``group/version``, with the group as its parent; its facet is the ModelApprovalStatus. A
package answers at once: nothing is validated in the background, so its status is Completed from the start (SageMaker
API, CreateModelPackage).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.api.control_call import ControlCall, Outcome
from serving.api.control_tags import keep, plain_name, without_tags
from serving.errors import Conflict, ServingError, ValidationError
from serving.fleet.store import Query, Record

MAX_PROPERTIES = 50
MAX_SPECIFICATIONS = 15
#: How many of a group's newest versions may be the answer to a repeated CreateModelPackage.
REPEATS = 10

#: Members that UpdateModelPackage replaces whole.
_REPLACED = (
    "ModelPackageRegistrationType",
    "ApprovalDescription",
    "InferenceSpecification",
    "SourceUri",
    "ModelLifeCycle",
)


# --- groups ---------------------------------------------------------------------------------------------------------


def create_group(call: ControlCall) -> Outcome:
    """CreateModelPackageGroup."""
    name = call.params["ModelPackageGroupName"]
    if call.session.get("model-package-group", name) is not None:
        raise ValidationError(f'ModelPackageGroup already exists: "{call.arn("model-package-group", name)}".')
    keep(call, Record("model-package-group", name, without_tags(call.params), call.now, call.now, "Completed"))
    return Outcome({"ModelPackageGroupArn": call.arn("model-package-group", name)})


def describe_group(call: ControlCall) -> Outcome:
    """DescribeModelPackageGroup. CreatedBy is required and there are no users here: it is the account."""
    group = _find_group(call)
    owner = {"Arn": f"arn:aws:iam::{call.settings.account_id}:root", "PrincipalId": call.settings.account_id}
    answer = {
        **group.body,
        "ModelPackageGroupArn": call.arn("model-package-group", group.name),
        "CreationTime": group.created,
        "CreatedBy": {"IamIdentity": owner},
        "ModelPackageGroupStatus": group.status,
    }
    return Outcome(answer)


def delete_group(call: ControlCall) -> Outcome:
    """DeleteModelPackageGroup: an empty one."""
    group = _find_group(call)
    if call.session.count("model-package", parent=group.name):
        arn = call.arn("model-package-group", group.name)
        raise Conflict(f'Model package group "{arn}" still has model packages; delete them first.')
    call.session.remove("model-package-group", group.name)
    return Outcome({})


def _find_group(call: ControlCall) -> Record:
    given = call.params["ModelPackageGroupName"]
    group = _group(call, given)
    if group is None:
        arn = given if given.startswith("arn:") else call.arn("model-package-group", given)
        raise ValidationError(f"ModelPackageGroup {arn} does not exist.")
    return group


def _group(call: ControlCall, name_or_arn: str) -> Record | None:
    name = plain_name(call, "model-package-group", name_or_arn)
    return call.session.get("model-package-group", name) if name else None


# --- packages: create -----------------------------------------------------------------------------------------------


def create_package(call: ControlCall) -> Outcome:
    """CreateModelPackage: a group's next version, or a package on its own. Repeated with the same ClientToken it is
    the same package."""
    versioned, single = "ModelPackageGroupName" in call.params, "ModelPackageName" in call.params
    if versioned and single:
        raise ValidationError(
            "Both ModelPackageName and ModelPackageGroupName are provided in the input. "
            "Cannot determine which one to use."
        )
    if not versioned and not single:
        raise ValidationError("Missing ARN: either ModelPackageGroupName or ModelPackageName must be given.")
    _check_specifications(call.params.get("AdditionalInferenceSpecifications", ()))
    package = _create_version(call) if versioned else _create_single(call)
    return Outcome({"ModelPackageArn": call.arn("model-package", package.name)})


def _create_version(call: ControlCall) -> Record:
    given = call.params["ModelPackageGroupName"]
    group = _group(call, given)
    if group is None:
        raise ValidationError(f"Model Package Group {given} does not exist.")
    recent, _ = call.session.find(Query("model-package", parent=group.name, limit=REPEATS))
    for package in recent:
        if _is_repeat(call, package):
            return package
    # A group made anew under an old name counts from 1: its moment of creation tells it from its predecessor.
    number = call.session.next_number(f"model-package-group/{group.name.lower()}/{group.created!r}")
    status = call.params.get("ModelApprovalStatus", "PendingManualApproval")
    return _keep_package(call, f"{group.name}/{number}", status, group.name)


def _create_single(call: ControlCall) -> Record:
    name = call.params["ModelPackageName"]
    existing = call.session.get("model-package", name)
    if existing is None:
        return _keep_package(call, name, call.params.get("ModelApprovalStatus", ""), "")
    if _is_repeat(call, existing):
        return existing
    raise ValidationError(f'ModelPackage already exists: "{call.arn("model-package", existing.name)}".')


def _keep_package(call: ControlCall, name: str, approval: str, group: str) -> Record:
    body = without_tags(call.params)
    package = Record("model-package", name, body, call.now, call.now, "Completed", parent=group, facet=approval)
    keep(call, package)
    return package


def _is_repeat(call: ControlCall, package: Record) -> bool:
    """A client that lost the answer asks again with the token it made for the call."""
    token = call.params.get("ClientToken")
    return token is not None and token == package.body.get("ClientToken")


def _check_specifications(specifications: Any) -> None:
    names = [one["Name"] for one in specifications]
    if len(set(names)) < len(names):
        raise ValidationError("Each of the AdditionalInferenceSpecifications must have a Name of its own.")
    if len(names) > MAX_SPECIFICATIONS:
        raise ValidationError(f"A model package has at most {MAX_SPECIFICATIONS} AdditionalInferenceSpecifications.")


# --- packages: find, describe, delete -------------------------------------------------------------------------------


def find_package(call: ControlCall, name_or_arn: str) -> Record:
    """The package of a name, ``group/version`` or ARN. Raises ``ValidationError``."""
    name = plain_name(call, "model-package", name_or_arn)
    package = call.session.get("model-package", name) if name else None
    if package is None:
        arn = call.arn("model-package", name) if name else name_or_arn
        raise ValidationError(f'Could not find model package "{arn}": it does not exist.')
    return package


def describe_package(call: ControlCall) -> Outcome:
    """DescribeModelPackage. ModelPackageName is required, so a version's is ``group/version``: what Describe takes."""
    package = find_package(call, call.params["ModelPackageName"])
    answer = {
        **package.body,
        **package_identity(call, package),
        "ModelPackageName": package.name,
        "ModelPackageStatusDetails": {"ValidationStatuses": []},
        "LastModifiedTime": package.modified,
    }
    if call.params.get("IncludedData") == "MetadataOnly" and "ModelCard" in answer:
        card = {member: value for member, value in answer["ModelCard"].items() if member != "ModelCardContent"}
        answer["ModelCard"] = card or None
    return Outcome(answer)


def package_identity(call: ControlCall, package: Record) -> dict[str, Any]:
    """What Describe, BatchDescribe and List all say of a package; absent members are None."""
    group, _, version = package.name.partition("/")
    return {
        "ModelPackageName": None if version else package.name,
        "ModelPackageGroupName": group if version else None,
        "ModelPackageVersion": int(version) if version else None,
        "ModelPackageArn": call.arn("model-package", package.name),
        "CreationTime": package.created,
        "ModelPackageStatus": package.status,
        "ModelApprovalStatus": package.facet or None,
    }


def delete_package(call: ControlCall) -> Outcome:
    """DeleteModelPackage. Its version number does not come back."""
    package = find_package(call, call.params["ModelPackageName"])
    call.session.remove("model-package", package.name)
    return Outcome({})


def batch_describe(call: ControlCall) -> Outcome:
    """BatchDescribeModelPackage: each ARN stands in one of two maps."""
    found: dict[str, Any] = {}
    failed: dict[str, Any] = {}
    for arn in call.params["ModelPackageArnList"]:
        try:
            found[arn] = _batch_summary(call, find_package(call, arn))
        except ServingError as error:
            failed[arn] = {"ErrorCode": "ValidationException", "ErrorResponse": str(error)}
    answer = {"ModelPackageSummaries": found, "BatchDescribeModelPackageErrorMap": failed}
    return Outcome({member: value for member, value in answer.items() if value})


def _batch_summary(call: ControlCall, package: Record) -> dict[str, Any]:
    """The members of a batch's summary, of which a group and an InferenceSpecification are required."""
    arn = call.arn("model-package", package.name)
    if not package.parent:
        raise ValidationError(f'Model package "{arn}" is not a version of a model package group.')
    if "InferenceSpecification" not in package.body:
        raise ValidationError(f'Model package "{arn}" has no InferenceSpecification.')
    return {**package.body, **package_identity(call, package)}


# --- packages: update -----------------------------------------------------------------------------------------------


def update_package(call: ControlCall) -> Outcome:
    """UpdateModelPackage: approval, description, metadata and specifications."""
    package = find_package(call, call.params["ModelPackageArn"])
    call.session.change(
        package,
        now=call.now,
        body=updated_body(package.body, call.params),
        facet=call.params.get("ModelApprovalStatus", package.facet),
    )
    return Outcome({"ModelPackageArn": call.arn("model-package", package.name)})


def updated_body(body: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """A package's body after an update. Pure. Raises ``ValidationError`` when a limit is passed."""
    merged: dict[str, Any] = {**body, **{member: update[member] for member in _REPLACED if member in update}}
    if "ModelCard" in update:
        merged["ModelCard"] = {**body.get("ModelCard", {}), **update["ModelCard"]}
    if "AdditionalInferenceSpecificationsToAdd" in update:
        specifications = [*body.get("AdditionalInferenceSpecifications", ())]
        specifications += update["AdditionalInferenceSpecificationsToAdd"]
        _check_specifications(specifications)
        merged["AdditionalInferenceSpecifications"] = specifications
    properties = _merged_properties(body, update)
    merged.pop("CustomerMetadataProperties", None)
    return {**merged, "CustomerMetadataProperties": properties} if properties else merged


def _merged_properties(body: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, str]:
    removed = update.get("CustomerMetadataPropertiesToRemove", ())
    merged = {**body.get("CustomerMetadataProperties", {}), **update.get("CustomerMetadataProperties", {})}
    properties = {key: value for key, value in merged.items() if key not in removed}
    if len(properties) > MAX_PROPERTIES:
        raise ValidationError(f"A model package has at most {MAX_PROPERTIES} CustomerMetadataProperties.")
    return properties
