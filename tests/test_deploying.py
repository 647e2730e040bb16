"""What is called so that a server has what a document says: only what differs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.declared import Document, as_any_client_sends
from serving.deploying import Described, plan
from serving.errors import ConfigError

MODELS = [
    {"ModelName": "a", "PrimaryContainer": {"ModelDataUrl": "/models/a", "Environment": {"X": "1"}}},
    {"ModelName": "b", "PrimaryContainer": {"ModelDataUrl": "s3://models/b", "Mode": "MultiModel"}},
]
CONFIGS = [
    {"EndpointConfigName": "one", "ProductionVariants": [{"VariantName": "v", "ModelName": "a"}]},
    {
        "EndpointConfigName": "two",
        "ProductionVariants": [
            {"VariantName": "v", "ModelName": "a", "InitialVariantWeight": 0.5},
            {"VariantName": "w", "ModelName": "b", "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}},
        ],
    },
]
ENDPOINTS = [
    {"EndpointName": "first", "EndpointConfigName": "one"},
    {"EndpointName": "second", "EndpointConfigName": "two"},
]
DOCUMENT = Document(tuple(MODELS), tuple(CONFIGS), tuple(ENDPOINTS))
NOTHING = Described({}, {}, {})


def applied(document: Document = DOCUMENT) -> Described:
    """What a server describes that has the document: answers carry more than was sent, in another order."""

    def answer(body: dict[str, Any], arn: str, **more: Any) -> dict[str, Any]:
        return {arn: f"arn:{body}", "CreationTime": 100.0, **dict(reversed(copy.deepcopy(body).items())), **more}

    return Described(
        {body["ModelName"].lower(): answer(dict(body), "ModelArn") for body in document.models},
        {body["EndpointConfigName"].lower(): answer(dict(body), "EndpointConfigArn") for body in document.configs},
        {
            body["EndpointName"].lower(): answer(
                dict(body), "EndpointArn", EndpointStatus="InService", LastModifiedTime=100.0
            )
            for body in document.endpoints
        },
    )


def calls(document: Document, described: Described, **options: bool) -> list[str]:
    """The plan as ``Operation name``."""
    steps = plan(document, described, **options)
    names = ("EndpointName", "EndpointConfigName", "ModelName", "ResourceArn")
    return [f"{step.operation} {next(step.params[name] for name in names if name in step.params)}" for step in steps]


def edited(change: Callable[[Any], object]) -> Document:
    """The document after a change to a copy of its bodies."""
    document = copy.deepcopy(DOCUMENT)
    change(document)
    return document


def test_what_is_new_is_created_from_the_ground_up() -> None:
    """Models before the configs that name them, configs before endpoints; each with its body as it stands."""
    assert [
        *("CreateModel a", "CreateModel b", "CreateEndpointConfig one", "CreateEndpointConfig two"),
        *("CreateEndpoint first", "CreateEndpoint second"),
    ] == calls(DOCUMENT, NOTHING)
    assert [*MODELS, *CONFIGS, *ENDPOINTS] == [step.params for step in plan(DOCUMENT, NOTHING)]


def test_what_is_there_already_is_left_alone() -> None:
    """Applying a document twice calls nothing the second time."""
    assert () == plan(DOCUMENT, applied())


def test_a_changed_model_is_made_anew_and_reaches_its_endpoints() -> None:
    """Those whose config names it, and no others."""
    document = edited(lambda it: it.models[1]["PrimaryContainer"].update(ModelDataUrl="s3://models/b2"))
    assert ["DeleteModel b", "CreateModel b", "UpdateEndpoint second"] == calls(document, applied())


def test_a_changed_config_is_made_anew_and_reaches_its_endpoints() -> None:
    """The endpoint keeps its config's name."""
    document = edited(lambda it: it.configs[0]["ProductionVariants"][0].update(InitialInstanceCount=2))
    assert ["DeleteEndpointConfig one", "CreateEndpointConfig one", "UpdateEndpoint first"] == calls(
        document, applied()
    )


def test_an_endpoint_moves_to_another_config() -> None:
    """One that is new, or one that the server has without the document's help."""
    document = edited(lambda it: it.endpoints[0].update(EndpointConfigName="two"))
    assert ["UpdateEndpoint first"] == calls(document, applied())
    assert ["UpdateEndpoint first"] == calls(Document(endpoints=document.endpoints), applied())


def test_a_field_that_goes_is_a_difference() -> None:
    """Back to the default counts as change, as adding does."""
    document = edited(lambda it: it.models[0]["PrimaryContainer"].pop("Environment"))
    assert ["DeleteModel a", "CreateModel a"] == calls(document, applied())[:2]
    assert ["DeleteModel a", "CreateModel a"] == calls(DOCUMENT, applied(document))[:2]


SAYS_NOTHING: list[tuple[str, Callable[[Any], object]]] = [
    ("weight 1.0", lambda it: it.configs[0]["ProductionVariants"][0].update(InitialVariantWeight=1.0)),
    ("one instance", lambda it: it.configs[0]["ProductionVariants"][0].update(InitialInstanceCount=1)),
    ("mode", lambda it: it.models[0]["PrimaryContainer"].update(Mode="SingleModel")),
    ("cache", lambda it: it.models[1]["PrimaryContainer"].update(MultiModelConfig={"ModelCacheSetting": "Enabled"})),
    ("random", lambda it: it.configs[0]["ProductionVariants"][0].update(RoutingConfig={"RoutingStrategy": "RANDOM"})),
    ("isolation", lambda it: it.models[0].update(EnableNetworkIsolation=False)),
    ("file URL", lambda it: it.models[0]["PrimaryContainer"].update(ModelDataUrl="file:///models/a")),
    ("no tags", lambda it: it.models[0].update(Tags=[])),
]


@pytest.mark.parametrize(("change"), [change for _, change in SAYS_NOTHING], ids=[name for name, _ in SAYS_NOTHING])
def test_what_means_the_same_is_no_difference(change: Callable[[Any], object]) -> None:
    """In either direction."""
    assert () == plan(edited(change), applied())
    assert () == plan(DOCUMENT, applied(edited(change)))


def test_the_command_line_and_other_clients_say_the_same() -> None:
    """A file applied at start and then by ``serving deploy`` changes nothing."""
    assert () == plan(as_any_client_sends(DOCUMENT), applied())


def test_names_are_found_whatever_their_case() -> None:
    """As the API finds them."""
    document = edited(lambda it: (it.models[0].update(ModelName="A"), it.endpoints[0].update(EndpointName="First")))
    assert () == plan(document, applied())


def test_a_failed_endpoint_is_made_anew() -> None:
    """AWS's API lets one do nothing else with it."""
    described = applied()
    failed = {**described.endpoints["first"], "EndpointStatus": "Failed"}
    described = Described(described.models, described.configs, {**described.endpoints, "first": failed})
    assert ["DeleteEndpoint first", "CreateEndpoint first"] == calls(DOCUMENT, described)


def test_an_update_on_its_way_counts() -> None:
    """An endpoint that is being moved to the wanted config is not updated again."""
    described = applied()
    moving = {
        **described.endpoints["first"],
        "EndpointConfigName": "two",
        "EndpointStatus": "Updating",
        "PendingDeploymentSummary": {"EndpointConfigName": "one"},
    }
    described = Described(described.models, described.configs, {**described.endpoints, "first": moving})
    assert [] == calls(DOCUMENT, described)


@pytest.mark.parametrize("kind", ["models", "configs"])
def test_who_was_interrupted_before_the_update_makes_it_up(kind: str) -> None:
    """A model or config younger than its endpoint's last change was made, but not taken up."""
    described = applied()
    younger = {name: {**body, "CreationTime": 100.5} for name, body in getattr(described, kind).items()}
    parts = {"models": described.models, "configs": described.configs, "endpoints": described.endpoints}
    assert ["UpdateEndpoint first", "UpdateEndpoint second"] == calls(DOCUMENT, Described(**{**parts, kind: younger}))


def test_an_artifact_may_have_changed_behind_its_name() -> None:
    """Who deploys again gets an update, although nothing differs."""
    assert ["UpdateEndpoint first", "UpdateEndpoint second"] == calls(DOCUMENT, applied(), again=True)


def test_tags_are_added_and_nothing_else() -> None:
    """Those that are missing or differ; tags that the document does not name are somebody else's."""
    tags = [{"Key": "team", "Value": "x"}, {"Key": "stage", "Value": "test"}]
    there = [{"Key": "team", "Value": "y"}, {"Key": "stage", "Value": "test"}, {"Key": "own", "Value": "1"}]
    document = edited(lambda it: it.endpoints[0].update(Tags=tags))
    (step,) = plan(document, applied(edited(lambda it: it.endpoints[0].update(Tags=there))))
    assert ("AddTags", [{"Key": "team", "Value": "x"}]) == (step.operation, step.params["Tags"])


def test_tags_do_not_travel_with_an_update() -> None:
    """UpdateEndpoint has no such member; a DeploymentConfig it has."""
    guarded = {"BlueGreenUpdatePolicy": {}}
    document = edited(
        lambda it: it.endpoints[0].update(EndpointConfigName="two", Tags=[], DeploymentConfig=guarded)
    )  # fmt: skip
    (step,) = plan(document, applied())
    assert {"EndpointName": "first", "EndpointConfigName": "two", "DeploymentConfig": guarded} == step.params


UNKNOWN: list[tuple[Callable[[Any], object], str]] = [
    (
        lambda it: it.configs[1]["ProductionVariants"][1].update(ModelName="bb"),
        r"EndpointConfigs\[1\]\.ProductionVariants\[1\]\.ModelName is 'bb'; expected one of the Models.*mean 'b'",
    ),
    (
        lambda it: it.endpoints[1].update(EndpointConfigName="twoo"),
        r"Endpoints\[1\]\.EndpointConfigName is 'twoo'; expected one of the EndpointConfigs.*did you mean 'two'",
    ),
]


@pytest.mark.parametrize(("change", "text"), UNKNOWN)
def test_a_name_that_is_nowhere_is_refused_before_anything_is_called(
    change: Callable[[Any], object], text: str
) -> None:
    """Where it stands, and what was meant; one that only the server has is fine."""
    with pytest.raises(ConfigError, match=text):
        plan(edited(change), NOTHING)
    assert ["CreateEndpointConfig one"] == calls(Document(configs=(CONFIGS[0],)), Described(applied().models, {}, {}))


BODIES = st.recursive(
    st.booleans() | st.integers(0, 3) | st.sampled_from(["RANDOM", "SingleModel", "x", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["Mode", "Environment", "Image", "Tags", "RoutingStrategy"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(one=BODIES, other=BODIES)
def test_any_difference_leads_to_the_same_end(one: object, other: object) -> None:
    """Whatever bodies differ in: after the plan's calls nothing differs any more."""
    before, after = (Document(({"ModelName": "m", "PrimaryContainer": {"Image": value}},)) for value in (one, other))
    steps = plan(after, applied(before))
    made = Document(tuple(step.params for step in steps if step.operation == "CreateModel"))
    assert () == plan(after, applied(made) if steps else applied(before))
