"""Tags: on any resource by its ARN, at most 50, in the order they were first given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ServingError
from serving.fleet.store import Record
from tests import memory
from tests.actions import ARN, Control, opened

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

KINDS = (
    "model",
    "endpoint-config",
    "endpoint",
    "inference-component",
    "model-package-group",
    "model-package",
    "transform-job",
    "monitoring-schedule",
    "data-quality-job-definition",
    "model-quality-job-definition",
    "model-bias-job-definition",
    "model-explainability-job-definition",
)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """A resource ``x`` of every kind, and the first version of ``x``."""
    with opened(tmp_path) as control:
        control.add(*(Record(kind, "x", {}, 1.0, 1.0) for kind in KINDS))
        control.add(Record("model-package", "x/1", {}, 1.0, 1.0, parent="x"))
        yield control


def tags(**pairs: str) -> list[dict[str, str]]:
    """Tags as the API writes them."""
    return [{"Key": key, "Value": value} for key, value in pairs.items()]


@pytest.mark.parametrize("resource", [*(f"{kind}/x" for kind in KINDS), "model-package/x/1"])
def test_every_kind_of_resource_has_tags_of_its_own(control: Control, resource: str) -> None:
    """Added, told, removed; another kind of the same name has none of them."""
    arn = ARN + resource
    assert {"Tags": tags(a="1", b="")} == control("AddTags", ResourceArn=arn, Tags=tags(a="1", b=""))
    assert {"Tags": tags(a="1", b="")} == control("ListTags", ResourceArn=arn)
    tagged = [record for record, found in control.everything() if found]
    assert [resource] == [f"{record.kind}/{record.name}" for record in tagged]
    assert {} == control("DeleteTags", ResourceArn=arn, TagKeys=["a", "never-there"])
    assert {"Tags": tags(b="")} == control("ListTags", ResourceArn=arn)


def test_adding_overwrites_where_the_key_stands(control: Control) -> None:
    """And answers all the resource's tags; keys mind case."""
    arn = f"{ARN}model/x"
    control("AddTags", ResourceArn=arn, Tags=tags(a="1", b="2"))
    added = control("AddTags", ResourceArn=arn, Tags=tags(c="3", a="4", A="5"))
    assert {"Tags": tags(a="4", b="2", c="3", A="5")} == added
    assert added == control("AddTags", ResourceArn=arn, Tags=[])


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:sagemaker:us-east-1:123456789012:model/X",
        "arn:aws:sagemaker:us-east-1:123456789012:MODEL/x",
        "arn:aws:sagemaker:eu-west-1:123456789012:model/x",
        "arn:aws-cn:sagemaker::123456789012:model/x",
    ],
)
def test_an_arn_is_read_ignoring_case_and_region(control: Control, arn: str) -> None:
    """AWS itself lower-cases names in ARNs."""
    control("AddTags", ResourceArn=arn, Tags=tags(k="v"))
    assert {"Tags": tags(k="v")} == control("ListTags", ResourceArn=f"{ARN}model/x")


@pytest.mark.parametrize(
    "arn",
    [
        f"{ARN}model/y",
        f"{ARN}model/x/1",
        f"{ARN}model-package/x/2",
        f"{ARN}training-job/x",
        f"{ARN}model",
        f"{ARN}model/",
        "arn:aws:sagemaker:us-east-1:999999999999:model/x",
    ],
)
def test_tags_of_an_unknown_resource_are_refused(control: Control, arn: str) -> None:
    """Another name, another type, another account."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("AddTags", {"Tags": tags(k="v")}),
        ("ListTags", {}),
        ("DeleteTags", {"TagKeys": ["k"]}),
    ]
    for operation, members in calls:
        assert control.refusal(operation, ResourceArn=arn, **members).startswith("Could not find ")


@pytest.mark.parametrize(
    ("given_tags", "words"),
    [
        (tags(a="1") * 2, 'Duplicate tag key "a"'),
        ([{"Key": "aws:x", "Value": "v"}], "the prefix aws: is reserved"),
        ([{"Key": "AwS:x", "Value": "v"}], "the prefix aws: is reserved"),
        ([{"Key": "", "Value": "v"}], "Member must have length greater than or equal to 1"),
        ([{"Key": "k" * 129, "Value": "v"}], "Member must have length less than or equal to 128"),
        ([{"Key": "k", "Value": "v" * 257}], "Member must have length less than or equal to 256"),
        ([{"Key": "k"}], "Value null at 'tags.1.member.value' failed to satisfy constraint: Member must not be null"),
        ([{"Key": "k!", "Value": "v"}], "Member must satisfy regular expression pattern"),
        (tags(**{f"k{at}": "v" for at in range(51)}), "Member must have length less than or equal to 50"),
    ],
)
def test_tags_that_may_not_be(control: Control, given_tags: list[dict[str, str]], words: str) -> None:
    """None of the request's tags is added."""
    control("AddTags", ResourceArn=f"{ARN}model/x", Tags=tags(a="0"))
    assert words in control.refusal("AddTags", ResourceArn=f"{ARN}model/x", Tags=given_tags)


def test_a_resource_has_at_most_fifty(control: Control) -> None:
    """Counted with those it has: a fifty-first is refused, overwriting one is not."""
    arn = f"{ARN}endpoint/x"
    control("AddTags", ResourceArn=arn, Tags=tags(**{f"k{at}": "v" for at in range(50)}))
    assert "at most 50 tags" in control.refusal("AddTags", ResourceArn=arn, Tags=tags(more="v"))
    control("AddTags", ResourceArn=arn, Tags=tags(k49="w"))
    listed = control("ListTags", ResourceArn=arn, MaxResults=50)
    assert (50, {"Key": "k49", "Value": "w"}) == (len(listed["Tags"]), listed["Tags"][-1])
    assert "NextToken" not in listed


def test_a_page_of_tags_is_no_smaller_than_fifty(control: Control) -> None:
    """And so there is no second one: a token cannot be ours."""
    arn = f"{ARN}model/x"
    assert "Member must have value greater than or equal to 50" in control.refusal(
        "ListTags", ResourceArn=arn, MaxResults=49
    )
    assert "NextToken" in control.refusal("ListTags", ResourceArn=arn, NextToken="abc")
    assert {"Tags": []} == control("ListTags", ResourceArn=arn, NextToken="", MaxResults=1000)


def test_letters_of_every_script_may_be_in_a_tag(control: Control) -> None:
    """So may spaces and the punctuation AWS allows."""
    wanted = [{"Key": "größe 名前 a_.:/=+-@", "Value": "Ωmega ٣"}]
    assert {"Tags": wanted} == control("AddTags", ResourceArn=f"{ARN}model/x", Tags=wanted)


KEYS = st.sampled_from(["a", "b", "A", "aws:a", "é", "", "k" * 128, "no\n"])
CALLS = st.one_of(
    st.tuples(
        st.just("AddTags"),
        st.fixed_dictionaries(
            {"Tags": st.lists(st.fixed_dictionaries({"Key": KEYS, "Value": st.sampled_from(["", "v"])}), max_size=3)}
        ),
    ),
    st.tuples(st.just("DeleteTags"), st.fixed_dictionaries({"TagKeys": st.lists(KEYS, max_size=3)})),
)


@given(calls=st.lists(CALLS, max_size=12))
@settings(deadline=None)
def test_tags_are_an_ordered_mapping(
    calls: list[tuple[str, dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is added and removed in whatever order; a refused call changes nothing."""
    kept: dict[str, str] = {}
    arn = f"{ARN}model/x"
    with opened(tmp_path_factory.mktemp("store")) as control:
        control.add(Record("model", "x", {}, 1.0, 1.0))
        for operation, members in calls:
            try:
                control(operation, ResourceArn=arn, **members)
            except ServingError as error:
                assert error.status < 500
                continue
            for tag in members.get("Tags", ()):
                kept[tag["Key"]] = tag["Value"]
            for key in members.get("TagKeys", ()):
                kept.pop(key, None)
            listed = control("ListTags", ResourceArn=arn)["Tags"]
            assert list(kept.items()) == [(tag["Key"], tag["Value"]) for tag in listed]
