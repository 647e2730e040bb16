"""Every List* operation: filters, order, windows and pages, and what is told of each resource."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.control_lists import LISTS
from serving.fleet.store import Record
from tests import memory
from tests.actions import ARN, Control, opened

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

NAME_OF = {
    "ListModels": "ModelName",
    "ListEndpointConfigs": "EndpointConfigName",
    "ListEndpoints": "EndpointName",
    "ListInferenceComponents": "InferenceComponentName",
    "ListModelPackageGroups": "ModelPackageGroupName",
    "ListModelPackages": "ModelPackageName",
    "ListTransformJobs": "TransformJobName",
    **{operation: "MonitoringJobDefinitionName" for operation in LISTS if "JobDefinition" in operation},
}
#: A status that a kind's records may have, where it is not InService.
STATUS_OF = {"model-package": "Completed", "model-package-group": "Completed", "transform-job": "Completed"}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """An empty store."""
    with opened(tmp_path) as control:
        yield control


def fill(control: Control, kind: str, *names: str, **members: Any) -> None:
    """Records made and changed at 100.0, 101.0, ... and 200.0, 201.0, ..."""
    members.setdefault("status", STATUS_OF.get(kind, "InService"))
    for at, name in enumerate(names):
        control.add(Record(kind, name, {"ModelPackageGroupName": name}, 100.0 + at, 200.0 + at, **members))


def names(control: Control, operation: str, **params: Any) -> list[str]:
    """The names on one page."""
    return [one[NAME_OF[operation]] for one in control(operation, **params)[LISTS[operation].result]]


@pytest.mark.parametrize("operation", LISTS)
def test_an_empty_list_is_a_list(control: Control, operation: str) -> None:
    """The model requires the member; there is no token."""
    assert {LISTS[operation].result: []} == control(operation)


@pytest.mark.parametrize("operation", LISTS)
def test_ten_a_page_newest_first_unless_said_otherwise(control: Control, operation: str) -> None:
    """Until the last page, which has no token."""
    every = [f"n{at:02}" for at in range(23)]
    fill(control, LISTS[operation].kind, *every)
    sizes, seen, token = [], [], {}
    while True:
        answer = control(operation, **token)
        page = [one[NAME_OF[operation]] for one in answer[LISTS[operation].result]]
        sizes.append(len(page))
        seen += page
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}
    assert [10, 10, 3] == sizes
    assert every[::-1] == seen


@pytest.mark.parametrize("operation", LISTS)
def test_lists_sort_by_name_and_time_both_ways(control: Control, operation: str) -> None:
    """Names by their bytes."""
    fill(control, LISTS[operation].kind, "b", "C", "a")
    assert ["b", "C", "a"] == names(control, operation, SortOrder="Ascending")
    assert ["C", "a", "b"] == names(control, operation, SortBy="Name", SortOrder="Ascending")
    assert ["b", "a", "C"] == names(control, operation, SortBy="Name")


@pytest.mark.parametrize("operation", LISTS)
def test_lists_filter_by_name_and_time(control: Control, operation: str) -> None:
    """After is inclusive, Before exclusive; filters narrow each other, before pages are cut."""
    fill(control, LISTS[operation].kind, *(f"{letter}{at}" for at in range(6) for letter in "ab"))
    assert ["a5", "a4"] == names(control, operation, NameContains="a", MaxResults=2)
    window = {"CreationTimeAfter": 102.0, "CreationTimeBefore": 104.0}
    assert ["b1", "a1"] == names(control, operation, **window)
    assert ["b1"] == names(control, operation, NameContains="b", **window)
    assert [] == names(control, operation, CreationTimeAfter=104.0, CreationTimeBefore=104.0)


@pytest.mark.parametrize("operation", ["ListEndpoints", "ListInferenceComponents"])
def test_what_has_a_status_is_filtered_and_sorted_by_it(control: Control, operation: str) -> None:
    """And by the time of its last change."""
    kind = LISTS[operation].kind
    fill(control, kind, "a", "b", status="InService", parent="e", facet="v")
    fill(control, kind, "c", status="Creating", parent="e", facet="v")
    assert ["b", "a"] == names(control, operation, StatusEquals="InService")
    assert [] == names(control, operation, StatusEquals="Failed")
    assert ["c", "a", "b"] == names(control, operation, SortBy="Status", SortOrder="Ascending")
    window = {"LastModifiedTimeAfter": 201.0, "LastModifiedTimeBefore": 202.0}
    assert ["b"] == names(control, operation, **window)


def test_jobs_are_filtered_and_sorted_by_their_status(control: Control) -> None:
    """And by the time of their last change."""
    fill(control, "transform-job", "a", "b", status="Stopped")
    fill(control, "transform-job", "c", status="Failed")
    assert ["b", "a"] == names(control, "ListTransformJobs", StatusEquals="Stopped")
    assert [] == names(control, "ListTransformJobs", StatusEquals="InProgress")
    assert ["c", "a", "b"] == names(control, "ListTransformJobs", SortBy="Status", SortOrder="Ascending")
    assert ["b"] == names(control, "ListTransformJobs", LastModifiedTimeAfter=201.0, LastModifiedTimeBefore=202.0)


def test_components_are_filtered_by_endpoint_and_variant(control: Control) -> None:
    """Endpoints in any case."""
    fill(control, "inference-component", "a", parent="E1", facet="v1", status="InService")
    fill(control, "inference-component", "b", parent="E1", facet="v2", status="InService")
    fill(control, "inference-component", "c", parent="E2", facet="v1", status="InService")
    listed = "ListInferenceComponents"
    assert ["b", "a"] == names(control, listed, EndpointNameEquals="e1")
    assert ["c", "a"] == names(control, listed, VariantNameEquals="v1")
    assert ["a"] == names(control, listed, EndpointNameEquals="E1", VariantNameEquals="v1")


@pytest.mark.parametrize(
    ("operation", "record", "expected"),
    [
        (
            "ListModels",
            Record("model", "X", {"PrimaryContainer": {"Image": "i"}}, 1.5, 2.5),
            {"ModelName": "X", "ModelArn": f"{ARN}model/X", "CreationTime": 1.5},
        ),
        (
            "ListEndpointConfigs",
            Record("endpoint-config", "X", {"KmsKeyId": "k"}, 1.5, 2.5),
            {"EndpointConfigName": "X", "EndpointConfigArn": f"{ARN}endpoint-config/X", "CreationTime": 1.5},
        ),
        (
            "ListEndpoints",
            Record("endpoint", "X", {"EndpointConfigName": "c"}, 1.5, 2.5, "Updating"),
            {
                "EndpointName": "X",
                "EndpointArn": f"{ARN}endpoint/X",
                "CreationTime": 1.5,
                "LastModifiedTime": 2.5,
                "EndpointStatus": "Updating",
            },
        ),
        (
            "ListInferenceComponents",
            Record("inference-component", "X", {}, 1.5, 2.5, "Creating", "E", "V"),
            {
                "InferenceComponentName": "X",
                "InferenceComponentArn": f"{ARN}inference-component/X",
                "EndpointName": "E",
                "EndpointArn": f"{ARN}endpoint/E",
                "VariantName": "V",
                "CreationTime": 1.5,
                "LastModifiedTime": 2.5,
                "InferenceComponentStatus": "Creating",
            },
        ),
        (
            "ListTransformJobs",
            Record(
                "transform-job", "X", {"Job": {}, "FailureReason": "r", "TransformEndTime": 2.0}, 1.5, 2.5, "Failed"
            ),
            {
                "TransformJobName": "X",
                "TransformJobArn": f"{ARN}transform-job/X",
                "CreationTime": 1.5,
                "TransformEndTime": 2.0,
                "LastModifiedTime": 2.5,
                "TransformJobStatus": "Failed",
                "FailureReason": "r",
            },
        ),
    ],
)
def test_what_a_summary_tells(control: Control, operation: str, record: Record, expected: dict[str, Any]) -> None:
    """Names, ARNs, times and a status: nothing of the body."""
    control.add(record)
    assert {LISTS[operation].result: [expected]} == control(operation)


def test_what_a_groups_summary_tells(control: Control) -> None:
    """With the description, if it has one."""
    control("CreateModelPackageGroup", ModelPackageGroupName="g", ModelPackageGroupDescription="d")
    expected = {
        "ModelPackageGroupName": "g",
        "ModelPackageGroupArn": f"{ARN}model-package-group/g",
        "ModelPackageGroupDescription": "d",
        "ModelPackageGroupStatus": "Completed",
        "CreationTime": control.now,
    }
    for account in ({}, {"CrossAccountFilterOption": "SameAccount"}):
        assert [expected] == control("ListModelPackageGroups", **account)["ModelPackageGroupSummaryList"]
    others = control("ListModelPackageGroups", CrossAccountFilterOption="CrossAccount")
    assert {"ModelPackageGroupSummaryList": []} == others


@pytest.fixture
def registry(control: Control) -> Control:
    """Two groups of two versions each, and a package of no group."""
    for group in ("g1", "g2"):
        control("CreateModelPackageGroup", ModelPackageGroupName=group)
        control.package(group, "Approved", ModelPackageDescription=f"of {group}")
        control.package(group, "Rejected")
    control("CreateModelPackage", ModelPackageName="single")
    return control


def arns(control: Control, **params: Any) -> list[str]:
    """The packages on one page, without what is the same for all."""
    listed = control("ListModelPackages", **params)["ModelPackageSummaryList"]
    return [one["ModelPackageArn"].removeprefix(f"{ARN}model-package/") for one in listed]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, ["single"]),
        ({"ModelPackageType": "Unversioned"}, ["single"]),
        ({"ModelPackageType": "Versioned"}, ["g2/2", "g2/1", "g1/2", "g1/1"]),
        ({"ModelPackageType": "Both"}, ["single", "g2/2", "g2/1", "g1/2", "g1/1"]),
        ({"ModelPackageGroupName": "G1"}, ["g1/2", "g1/1"]),
        ({"ModelPackageGroupName": f"{ARN}model-package-group/g1"}, ["g1/2", "g1/1"]),
        ({"ModelPackageGroupName": f"{ARN}model/g1"}, []),
        ({"ModelPackageGroupName": "g1", "ModelApprovalStatus": "Approved"}, ["g1/1"]),
        ({"ModelPackageGroupName": "g1", "ModelPackageType": "Unversioned"}, []),
        ({"ModelPackageGroupName": "g3"}, []),
        ({"ModelPackageType": "Versioned", "ModelApprovalStatus": "Rejected"}, ["g2/2", "g1/2"]),
        ({"ModelPackageType": "Both", "NameContains": "g2"}, ["g2/2", "g2/1"]),
        ({"ModelPackageGroupName": "g1", "MaxResults": 1}, ["g1/2"]),
    ],
)
def test_packages_are_filtered_by_group_approval_and_type(
    registry: Control, params: dict[str, Any], expected: list[str]
) -> None:
    """Without a type: a group's versions if one is named, else the packages of no group."""
    assert expected == arns(registry, **params)


def test_what_a_packages_summary_tells(registry: Control) -> None:
    """A version's group and number, or a name."""
    version, single = registry("ListModelPackages", ModelPackageType="Both", SortOrder="Ascending")[
        "ModelPackageSummaryList"
    ][::4]
    created = version.pop("CreationTime"), single.pop("CreationTime")
    assert created[0] < created[1]
    assert {
        "ModelPackageGroupName": "g1",
        "ModelPackageVersion": 1,
        "ModelPackageArn": f"{ARN}model-package/g1/1",
        "ModelPackageDescription": "of g1",
        "ModelPackageStatus": "Completed",
        "ModelApprovalStatus": "Approved",
    } == version
    assert {
        "ModelPackageName": "single",
        "ModelPackageArn": f"{ARN}model-package/single",
        "ModelPackageStatus": "Completed",
    } == single


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"MaxResults": 0}, "Member must have value greater than or equal to 1"),
        ({"MaxResults": 101}, "Member must have value less than or equal to 100"),
        ({"SortBy": "Colour"}, "Member must satisfy enum value set"),
        ({"SortOrder": "Sideways"}, "Member must satisfy enum value set"),
        ({"NameContains": "a_b"}, "Member must satisfy regular expression pattern"),
        ({"NameContains": "a" * 64}, "Member must have length less than or equal to 63"),
        ({"CreationTimeAfter": "yesterday"}, "Member must be a timestamp"),
        ({"NextToken": "made-up"}, "NextToken"),
        ({"NextToken": "a" * 8193}, "Member must have length less than or equal to 8192"),
    ],
)
@pytest.mark.parametrize("operation", LISTS)
def test_what_a_list_refuses(control: Control, operation: str, params: dict[str, Any], words: str) -> None:
    """The same in every list."""
    assert words in control.refusal(operation, **params)


def test_a_token_is_for_the_list_that_gave_it(control: Control) -> None:
    """Not for another kind of resource or another order."""
    for kind in ("model", "endpoint-config"):
        fill(control, kind, *(f"n{at}" for at in range(3)))
    token = control("ListModels", MaxResults=1)["NextToken"]
    assert ["n1", "n0"] == names(control, "ListModels", NextToken=token)
    for operation, params in (("ListEndpointConfigs", {}), ("ListModels", {"SortBy": "Name"})):
        assert "NextToken" in control.refusal(operation, NextToken=token, **params)


def test_pages_hold_together_while_resources_come_and_go(control: Control) -> None:
    """What was there all the time is seen once: neither a new one nor a deleted one shifts the next page."""
    for at in range(6):
        control.model(f"n{at}")
    answer = control("ListModels", MaxResults=3)
    assert ["n5", "n4", "n3"] == [one["ModelName"] for one in answer["Models"]]
    control.model("new")
    control("DeleteModel", ModelName="n3")
    assert ["n2", "n1", "n0"] == names(control, "ListModels", NextToken=answer["NextToken"])


@given(
    made=st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 4), st.sampled_from(["InService", "Failed"])),
        unique_by=lambda one: one[0],
    ),
    by=st.sampled_from(["Name", "CreationTime", "Status"]),
    order=st.sampled_from(["Ascending", "Descending"]),
    limit=st.integers(1, 4),
    after=st.none() | st.integers(0, 5),
    before=st.none() | st.integers(0, 5),
    status=st.none() | st.sampled_from(["InService", "Failed"]),
)
@settings(deadline=None, max_examples=60)
def test_pages_add_up_to_the_list(
    made: list[tuple[str, int, str]],
    by: str,
    order: str,
    limit: int,
    after: int | None,
    before: int | None,
    status: str | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever the filters, the order, the size of a page and how many were made in the same moment."""
    optional = {"CreationTimeAfter": after, "CreationTimeBefore": before, "StatusEquals": status}
    params = {"SortBy": by, "SortOrder": order, "MaxResults": limit}
    params |= {name: value for name, value in optional.items() if value is not None}
    keys = {"Name": lambda one: one[0], "CreationTime": lambda one: (one[1], one[0]), "Status": lambda one: one[2::-2]}
    wanted = [
        one
        for one in made
        if (after is None or one[1] >= after) and (before is None or one[1] < before) and status in (None, one[2])
    ]
    expected = [one[0] for one in sorted(wanted, key=keys[by], reverse=order == "Descending")]
    with opened(tmp_path_factory.mktemp("store")) as control:
        control.add(*(Record("endpoint", name, {}, float(at), float(at), state) for name, at, state in made))
        seen: list[str] = []
        token: dict[str, str] = {}
        while True:
            answer = control("ListEndpoints", **params, **token)
            assert len(answer["Endpoints"]) <= limit
            seen += [one["EndpointName"] for one in answer["Endpoints"]]
            if "NextToken" not in answer:
                break
            token = {"NextToken": answer["NextToken"]}
    assert expected == seen
