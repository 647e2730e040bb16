"""The model registry: groups, versions that are never numbered twice, approval, packages on their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.api.control_registry import updated_body
from serving.api.failures import dress_control
from serving.errors import Conflict, ServingError, ValidationError
from tests import memory
from tests.actions import ARN, URL, Control, opened, without

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

SPECIFICATION: dict[str, Any] = {
    "Containers": [{"Image": "i", "ModelDataUrl": URL, "Environment": {}, "Framework": "XGBOOST"}],
    "SupportedContentTypes": ["text/csv"],
    "SupportedResponseMIMETypes": ["application/json"],
    "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
}
METRICS = {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": "s3://b/m.json"}}}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """With an empty group, ``Group``."""
    with opened(tmp_path) as control:
        control("CreateModelPackageGroup", ModelPackageGroupName="Group", ModelPackageGroupDescription="d")
        yield control


def described(control: Control, name: str, **members: Any) -> dict[str, Any]:
    """DescribeModelPackage."""
    answer: dict[str, Any] = control("DescribeModelPackage", ModelPackageName=name, **members)
    return answer


# --- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Group", "gROUP", f"{ARN}model-package-group/group"])
def test_a_group_is_described_by_name_or_arn(control: Control, name: str) -> None:
    """At once Completed; all the required members are there and none is empty."""
    expected = {
        "ModelPackageGroupName": "Group",
        "ModelPackageGroupDescription": "d",
        "ModelPackageGroupArn": f"{ARN}model-package-group/Group",
        "ModelPackageGroupStatus": "Completed",
        "CreationTime": control.now,
        "CreatedBy": {"IamIdentity": {"Arn": "arn:aws:iam::123456789012:root", "PrincipalId": "123456789012"}},
    }
    assert expected == control("DescribeModelPackageGroup", ModelPackageGroupName=name)


def test_a_groups_name_is_taken_in_any_case(control: Control) -> None:
    """Clients look for the words and go on with the group there is."""
    refusal = control.refusal("CreateModelPackageGroup", ModelPackageGroupName="group")
    assert f'ModelPackageGroup already exists: "{ARN}model-package-group/group".' == refusal


@pytest.mark.parametrize("name", ["other", f"{ARN}model-package-group/other", f"{ARN}model-package/Group"])
def test_an_unknown_group_does_not_exist(control: Control, name: str) -> None:
    """In AWS's words, whoever asks."""
    for operation in ("DescribeModelPackageGroup", "DeleteModelPackageGroup"):
        refusal = control.refusal(operation, ModelPackageGroupName=name)
        assert refusal.startswith("ModelPackageGroup arn:")
        assert refusal.endswith(" does not exist.")
    expected = f"Model Package Group {name} does not exist."
    assert expected == control.refusal("CreateModelPackage", ModelPackageGroupName=name)


def test_only_an_empty_group_can_be_deleted(control: Control) -> None:
    """Its packages go first; then a group of that name begins anew."""
    arn = control.package("Group")
    error = control.error(Conflict, "DeleteModelPackageGroup", ModelPackageGroupName="Group")
    assert ("ConflictException", 400) == (error.code, dress_control(error, "")[0])
    control("DeleteModelPackage", ModelPackageName=arn)
    assert control("DeleteModelPackageGroup", ModelPackageGroupName="group") is None
    control.refusal("DescribeModelPackageGroup", ModelPackageGroupName="Group")
    control("CreateModelPackageGroup", ModelPackageGroupName="Group")
    assert f"{ARN}model-package/Group/1" == control.package("Group")


# --- packages -------------------------------------------------------------------------------------------------------


def test_a_version_is_described_as_it_was_sent(control: Control) -> None:
    """With its number, its approval pending unless said otherwise; its group by name even where the ARN was given."""
    sent = {
        "ModelPackageDescription": "first",
        "InferenceSpecification": SPECIFICATION,
        "ModelMetrics": METRICS,
        "CustomerMetadataProperties": {"a": "1"},
        "MetadataProperties": {"CommitId": "c"},
        "Domain": "COMPUTER_VISION",
        "SkipModelValidation": "None",
        "CertifyForMarketplace": False,
        "SourceUri": "s3://b/source",
        "ModelLifeCycle": {"Stage": "Dev", "StageStatus": "New"},
    }
    group = f"{ARN}model-package-group/group"
    created = control("CreateModelPackage", ModelPackageGroupName=group, ClientToken="t", **sent)
    assert {"ModelPackageArn": f"{ARN}model-package/Group/1"} == created
    expected = {
        **sent,
        **created,
        "ModelPackageName": "Group/1",
        "ModelPackageGroupName": "Group",
        "ModelPackageVersion": 1,
        "ModelPackageStatus": "Completed",
        "ModelPackageStatusDetails": {"ValidationStatuses": []},
        "ModelApprovalStatus": "PendingManualApproval",
        "CreationTime": control.now,
        "LastModifiedTime": control.now,
    }
    for name in ("Group/1", "group/1", created["ModelPackageArn"]):
        assert expected == described(control, name)


def test_a_package_on_its_own_has_no_version(control: Control) -> None:
    """Nor a group, nor an approval unless one was given."""
    created = control("CreateModelPackage", ModelPackageName="Single", InferenceSpecification=SPECIFICATION)
    assert {"ModelPackageArn": f"{ARN}model-package/Single"} == created
    answer = described(control, "single")
    assert "Single" == answer["ModelPackageName"]
    absent = {"ModelPackageGroupName", "ModelPackageVersion", "ModelApprovalStatus"}
    assert set() == absent & set(answer)
    control("CreateModelPackage", ModelPackageName="other", ModelApprovalStatus="Approved")
    assert "Approved" == described(control, "other")["ModelApprovalStatus"]


def test_a_packages_name_is_taken_in_any_case(control: Control) -> None:
    """Clients look for the words and go on with the package there is. A group may bear the same name."""
    control("CreateModelPackage", ModelPackageName="Group")
    refusal = control.refusal("CreateModelPackage", ModelPackageName="group")
    assert f'ModelPackage already exists: "{ARN}model-package/Group".' == refusal


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "Missing ARN"),
        ({"ModelPackageName": "p", "ModelPackageGroupName": "Group"}, "Cannot determine which one to use."),
        ({"ModelPackageGroupName": "Group", "InferenceSpecification": {}}, "'inferenceSpecification.containers'"),
        ({"ModelPackageGroupName": "Group", "ModelApprovalStatus": "Maybe"}, "Member must satisfy enum value set"),
        ({"ModelPackageGroupName": "Group", "CustomerMetadataProperties": {}}, "'customerMetadataProperties'"),
        (
            {
                "ModelPackageGroupName": "Group",
                "AdditionalInferenceSpecifications": [{"Name": "n", "Containers": [{"Image": "i"}]}] * 2,
            },
            "must have a Name of its own",
        ),
        ({"ModelPackageGroupName": "Group", "Tags": [{"Key": "aws:k", "Value": "v"}]}, "aws: is reserved"),
    ],
)
def test_packages_that_may_not_be(control: Control, members: dict[str, Any], words: str) -> None:
    """And none of them uses up a version."""
    assert words in control.refusal("CreateModelPackage", **members)
    assert f"{ARN}model-package/Group/1" == control.package("Group")


def test_versions_are_never_numbered_twice(control: Control) -> None:
    """Whatever is deleted; each group counts for itself."""
    control("CreateModelPackageGroup", ModelPackageGroupName="h")
    assert ["1", "2", "3"] == [control.package("Group")[-1] for _ in range(3)]
    assert "1" == control.package("h")[-1]
    for version in (3, 1):
        assert control("DeleteModelPackage", ModelPackageName=f"Group/{version}") is None
    assert "4" == control.package("Group")[-1]
    for version in (1, 3, 5):
        words = f'Could not find model package "{ARN}model-package/Group/{version}": it does not exist.'
        assert words == control.refusal("DescribeModelPackage", ModelPackageName=f"Group/{version}")
        assert words == control.refusal("DeleteModelPackage", ModelPackageName=f"Group/{version}")


def test_a_repeated_call_makes_one_package(control: Control) -> None:
    """A client whose answer was lost sends the same ClientToken again."""
    made = [control("CreateModelPackage", ModelPackageGroupName="Group", ClientToken=token) for token in "aab"]
    assert ["1", "1", "2"] == [one["ModelPackageArn"][-1] for one in made]
    single = [control("CreateModelPackage", ModelPackageName="p", ClientToken="a") for _ in range(2)]
    assert single[0] == single[1]
    control.refusal("CreateModelPackage", ModelPackageName="p", ClientToken="b")


def test_the_tags_of_a_package_are_its_own(control: Control) -> None:
    """They are gone with it."""
    control("CreateModelPackage", ModelPackageGroupName="Group", Tags=[{"Key": "k", "Value": "v"}])
    arn = f"{ARN}model-package/group/1"
    assert [{"Key": "k", "Value": "v"}] == control("ListTags", ResourceArn=arn)["Tags"]
    assert [] == control("ListTags", ResourceArn=f"{ARN}model-package-group/group")["Tags"]
    control("DeleteModelPackage", ModelPackageName=arn)
    control.refusal("ListTags", ResourceArn=arn)


def test_a_card_is_left_out_when_only_metadata_is_asked_for(control: Control) -> None:
    """Its content may be secret; its status is not."""
    card = {"ModelCardContent": "{}", "ModelCardStatus": "Draft"}
    control("CreateModelPackage", ModelPackageGroupName="Group", ModelCard=card)
    control("CreateModelPackage", ModelPackageGroupName="Group", ModelCard={"ModelCardContent": "{}"})
    assert card == described(control, "Group/1")["ModelCard"]
    assert card == described(control, "Group/1", IncludedData="AllData")["ModelCard"]
    assert {"ModelCardStatus": "Draft"} == described(control, "Group/1", IncludedData="MetadataOnly")["ModelCard"]
    assert "ModelCard" not in described(control, "Group/2", IncludedData="MetadataOnly")


# --- update ---------------------------------------------------------------------------------------------------------


def test_approval_is_given_and_taken_back(control: Control) -> None:
    """By ARN, with a description and the time; a model needs it at the moment it is made."""
    arn = control.package("Group", "PendingManualApproval")
    created = control.now
    for status in ("Approved", "Rejected", "PendingManualApproval", "Approved"):
        update = {"ModelApprovalStatus": status, "ApprovalDescription": f"now {status}"}
        assert {"ModelPackageArn": arn} == control("UpdateModelPackage", ModelPackageArn=arn, **update)
        answer = described(control, arn)
        assert update == {member: answer[member] for member in update}
    assert (created, control.now - 1) == (answer["CreationTime"], answer["LastModifiedTime"])
    control("CreateModel", ModelName="m", PrimaryContainer={"ModelPackageName": arn})


def test_an_update_leaves_the_rest_alone(control: Control) -> None:
    """Members that are not in it stay as they were."""
    arn = control.package("Group", ModelPackageDescription="d", CustomerMetadataProperties={"a": "1"})
    before = described(control, arn)
    control("UpdateModelPackage", ModelPackageArn=arn, SourceUri="s3://b/new")
    assert {**before, "SourceUri": "s3://b/new", "LastModifiedTime": control.now} == described(control, arn)


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        ({}, {"a": "1", "b": "2"}),
        ({"CustomerMetadataProperties": {"b": "3", "c": "4"}}, {"a": "1", "b": "3", "c": "4"}),
        ({"CustomerMetadataPropertiesToRemove": ["a", "never"]}, {"b": "2"}),
        ({"CustomerMetadataProperties": {"a": "9"}, "CustomerMetadataPropertiesToRemove": ["a"]}, {"b": "2"}),
        ({"CustomerMetadataPropertiesToRemove": ["a", "b"]}, None),
    ],
)
def test_metadata_is_merged_and_removed(update: dict[str, Any], expected: dict[str, str] | None) -> None:
    """None left: the member is gone, as an empty one would not be a valid request."""
    body = {"CustomerMetadataProperties": {"a": "1", "b": "2"}}
    assert expected == updated_body(body, update).get("CustomerMetadataProperties")


def test_an_update_may_replace_and_add_specifications(control: Control) -> None:
    """The main one is replaced, others are added, up to 15 of different names; a card's members one by one."""
    arn = control.package("Group", ModelCard={"ModelCardContent": "{}", "ModelCardStatus": "Draft"})
    more = [{"Name": f"n{at}", "Containers": [{"Image": "i"}]} for at in range(16)]
    control(
        "UpdateModelPackage",
        ModelPackageArn=arn,
        InferenceSpecification=SPECIFICATION,
        AdditionalInferenceSpecificationsToAdd=more[:10],
        ModelCard={"ModelCardStatus": "Approved"},
    )
    control("UpdateModelPackage", ModelPackageArn=arn, AdditionalInferenceSpecificationsToAdd=more[10:15])
    answer = described(control, arn)
    assert SPECIFICATION == answer["InferenceSpecification"]
    assert more[:15] == answer["AdditionalInferenceSpecifications"]
    assert {"ModelCardContent": "{}", "ModelCardStatus": "Approved"} == answer["ModelCard"]
    for wrong, words in ((more[15:], "at most 15"), (more[:1], "a Name of its own")):
        update = {"ModelPackageArn": arn, "AdditionalInferenceSpecificationsToAdd": wrong}
        assert words in control.refusal("UpdateModelPackage", **update)


def test_a_package_has_at_most_fifty_properties(control: Control) -> None:
    """Counted after the update."""
    arn = control.package("Group", CustomerMetadataProperties={f"k{at}": "v" for at in range(50)})
    update = {"ModelPackageArn": arn, "CustomerMetadataProperties": {"more": "v"}, "ModelApprovalStatus": "Rejected"}
    assert "at most 50 CustomerMetadataProperties" in control.refusal("UpdateModelPackage", **update)
    control("UpdateModelPackage", **update, CustomerMetadataPropertiesToRemove=["k0"])
    assert "Rejected" == described(control, arn)["ModelApprovalStatus"]


def test_an_unknown_package_is_not_updated(control: Control) -> None:
    """It is refused by the ARN that was asked for."""
    arn = f"{ARN}model-package/Group/7"
    refusal = control.refusal("UpdateModelPackage", ModelPackageArn=arn, ModelApprovalStatus="Approved")
    assert f'Could not find model package "{arn}": it does not exist.' == refusal


# --- batch ----------------------------------------------------------------------------------------------------------


def test_a_batch_tells_found_and_failed_apart(control: Control) -> None:
    """By the ARNs as they were asked for: the unknown, the unversioned and the unspecified fail, the others do not."""
    known = control.package("Group")
    control("CreateModelPackage", ModelPackageName="single", InferenceSpecification=SPECIFICATION)
    bare = control("CreateModelPackage", ModelPackageGroupName="Group")["ModelPackageArn"]
    failing = [f"{ARN}model-package/Group/9", f"{ARN}model-package/single", bare]
    upper = known.replace("Group", "GROUP")
    answer = control("BatchDescribeModelPackage", ModelPackageArnList=[known, *failing, upper])
    assert [known, upper] == list(answer["ModelPackageSummaries"])
    summary = answer["ModelPackageSummaries"][upper]
    expected = {
        "ModelPackageGroupName": "Group",
        "ModelPackageVersion": 1,
        "ModelPackageArn": known,
        "ModelPackageStatus": "Completed",
        "ModelApprovalStatus": "Approved",
    }
    assert expected == without(summary, "CreationTime", "InferenceSpecification")
    errors = answer["BatchDescribeModelPackageErrorMap"]
    assert failing == list(errors)
    assert {"ValidationException"} == {error["ErrorCode"] for error in errors.values()}
    assert "it does not exist" in errors[failing[0]]["ErrorResponse"]


def test_a_batch_leaves_an_empty_map_out(control: Control) -> None:
    """An unset member is absent."""
    known, unknown = control.package("Group"), f"{ARN}model-package/none"
    assert ["ModelPackageSummaries"] == list(control("BatchDescribeModelPackage", ModelPackageArnList=[known]))
    failed = control("BatchDescribeModelPackage", ModelPackageArnList=[unknown])
    assert ["BatchDescribeModelPackageErrorMap"] == list(failed)


# --- any order ------------------------------------------------------------------------------------------------------

GROUPS = st.sampled_from(["g", "G", "h"])
APPROVALS = st.sampled_from(["Approved", "Rejected", "PendingManualApproval"])


class Registry(RuleBasedStateMachine):
    """Groups and versions made, approved and deleted in any order, against plain mappings."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=memory.place())
        self.context = opened(Path(self.folder.name))
        self.control = self.context.__enter__()
        self.approval: dict[str, dict[int, str]] = {}
        self.last: dict[str, int] = {}

    def teardown(self) -> None:
        """Close the store."""
        self.context.__exit__(None, None, None)
        self.folder.cleanup()

    def attempt(self, allowed: bool, operation: str, **params: Any) -> None:
        """The call succeeds exactly when it is allowed."""
        if allowed:
            self.control(operation, **params)
        else:
            assert self.control.error(ServingError, operation, **params).status < 500

    @rule(group=GROUPS)
    def create_group(self, group: str) -> None:
        """Once."""
        self.attempt(group.lower() not in self.approval, "CreateModelPackageGroup", ModelPackageGroupName=group)
        if group.lower() not in self.approval:
            self.approval[group.lower()] = {}
            self.last[group.lower()] = 0

    @rule(group=GROUPS)
    def delete_group(self, group: str) -> None:
        """When it is empty."""
        empty = self.approval.get(group.lower()) == {}
        self.attempt(empty, "DeleteModelPackageGroup", ModelPackageGroupName=group)
        if empty:
            del self.approval[group.lower()]

    @rule(group=GROUPS, approval=APPROVALS)
    def create_version(self, group: str, approval: str) -> None:
        """When there is a group."""
        key = group.lower()
        members = {"ModelPackageGroupName": group, "ModelApprovalStatus": approval}
        self.attempt(key in self.approval, "CreateModelPackage", **members)
        if key in self.approval:
            self.last[key] += 1
            self.approval[key][self.last[key]] = approval

    @rule(group=GROUPS, version=st.integers(1, 4), approval=APPROVALS)
    def approve(self, group: str, version: int, approval: str) -> None:
        """When there is such a version."""
        versions = self.approval.get(group.lower(), {})
        arn = f"{ARN}model-package/{group}/{version}"
        self.attempt(version in versions, "UpdateModelPackage", ModelPackageArn=arn, ModelApprovalStatus=approval)
        if version in versions:
            versions[version] = approval

    @precondition(lambda self: any(self.approval.values()))
    @rule(group=GROUPS, version=st.integers(1, 4))
    def delete_version(self, group: str, version: int) -> None:
        """When there is such a version."""
        versions = self.approval.get(group.lower(), {})
        self.attempt(version in versions, "DeleteModelPackage", ModelPackageName=f"{group}/{version}")
        versions.pop(version, None)

    @invariant()
    def what_is_listed_is_what_there_is(self) -> None:
        """Oldest first, with the approval each has."""
        for group in ("g", "h"):
            params = {"ModelPackageGroupName": group, "MaxResults": 100, "SortOrder": "Ascending"}
            listed = self.control("ListModelPackages", **params)["ModelPackageSummaryList"]
            found = {one["ModelPackageVersion"]: one["ModelApprovalStatus"] for one in listed}
            assert self.approval.get(group, {}) == found
            assert sorted(found) == list(found)


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_the_error_of_a_missing_package_is_the_one_clients_know(control: Control) -> None:
    """ValidationException, not ResourceNotFound."""
    error = control.error(ValidationError, "DescribeModelPackage", ModelPackageName="none")
    assert str(error).startswith("Could not find model package")
