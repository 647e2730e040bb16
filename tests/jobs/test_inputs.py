"""Which objects a transform job reads and what their outputs are called, over files and over a real S3 server."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ObjectMissing, ValidationError
from serving.jobs import inputs
from serving.jobs.inputs import sources
from serving.objects import ObjectStore
from tests import memory
from tests.objects import S3Server, fill, local

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

_buckets = count(1)
OUT = "s3://out/results"


@pytest.fixture(params=["local", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """Every kind of store."""
    if request.param == "local":
        yield local(tmp_path)
        return
    server: S3Server = request.getfixturevalue("s3")
    with server.objects(tmp_path) as store:
        yield store


@pytest.fixture
def bucket(request: pytest.FixtureRequest, objects: ObjectStore, tmp_path: Path) -> str:
    """A bucket of this test alone, ``s3://name``."""
    name = f"inputs-{next(_buckets)}"
    if "s3" in request.node.callspec.id:
        server: S3Server = request.getfixturevalue("s3")
        with server.objects(tmp_path, name):
            pass
    return f"s3://{name}"


def named(objects: ObjectStore, kind: str, uri: str, output_path: str = OUT) -> dict[str, str]:
    """Output by input."""
    return {source.url: source.output for source in sources(objects, kind, uri, output_path)}


def manifest(objects: ObjectStore, url: str, *items: object) -> str:
    """Put a manifest."""
    objects.put(url, json.dumps(items).encode())
    return url


# --- prefixes -------------------------------------------------------------------------------------------------------


def test_every_object_of_a_prefix_is_a_source(objects: ObjectStore, bucket: str) -> None:
    """Empty ones too, with size and version, by key; a prefix is no folder."""
    fill(objects, f"{bucket}/in/", a__x=b"123", ab=b"", b=b"4")
    found = list(sources(objects, "S3Prefix", f"{bucket}/in/a", OUT))
    assert [
        (f"{bucket}/in/a/x", 3, f"{OUT}/a/x.out"),
        (f"{bucket}/in/ab", 0, f"{OUT}/ab.out"),
    ] == [(source.url, source.size, source.output) for source in found]
    for source in found:
        with objects.open(source.url, 0, source.version) as file:
            assert source.size == len(file.read())


@pytest.mark.parametrize(
    ("uri", "output"),
    [
        ("/in/", "a/x.csv.out"),
        ("/in/a", "a/x.csv.out"),
        ("/in", "in/a/x.csv.out"),
        ("/in/a/", "x.csv.out"),
        ("/in/a/x.csv", "x.csv.out"),
        ("/", "in/a/x.csv.out"),
        ("", "in/a/x.csv.out"),
    ],
)
@pytest.mark.parametrize("path", ["s3://out", "s3://out/", "s3://out/p", "s3://out/p/"])
def test_outputs_are_named_from_the_last_slash_on(tmp_path: Path, uri: str, output: str, path: str) -> None:
    """behaviour/04: the key relative to the last ``/`` of S3Uri, then ``.out``, below S3OutputPath."""
    objects = local(tmp_path)
    objects.put("s3://b/in/a/x.csv", b"")
    assert {"s3://b/in/a/x.csv": f"{path.rstrip('/')}/{output}"} == named(objects, "S3Prefix", f"s3://b{uri}", path)


def test_a_prefix_of_nothing_is_refused(objects: ObjectStore, bucket: str) -> None:
    """Also in a bucket that is not there."""
    fill(objects, f"{bucket}/", a=b"")
    for uri in (f"{bucket}/b", "s3://nobody-made-it/a"):
        with pytest.raises(ValidationError, match="There is no object whose name starts with 's3://"):
            list(sources(objects, "S3Prefix", uri, OUT))


KEYS = st.lists(st.sampled_from(["a", "b", "c.csv", "d-", "ä", "x y"]), min_size=1, max_size=4).map("/".join)


@given(st.sets(KEYS, min_size=1, max_size=10), st.data())
@settings(deadline=None, max_examples=50)
def test_no_two_inputs_have_one_output(keys: set[str], data: st.DataObject) -> None:
    """Whatever the keys and the prefix: as many outputs as inputs, each the input's tail below the output path."""
    start = data.draw(st.sampled_from(sorted(keys)))
    prefix = start[: data.draw(st.integers(0, len(start)))]
    with tempfile.TemporaryDirectory(dir=memory.place()) as folder:
        objects = local(Path(folder))
        kept = set()
        for key in sorted(keys):
            try:
                objects.put(f"s3://b/{key}", b"")
                kept.add(key)
            except ValidationError:  # a file and a folder of one name
                continue
        expected = {f"s3://b/{key}" for key in kept if key.startswith(prefix)}
        if expected:
            outputs = named(objects, "S3Prefix", f"s3://b/{prefix}")
            assert expected == set(outputs)
            assert len(expected) == len(set(outputs.values()))
            for url, output in outputs.items():
                assert url.endswith("/" + output.removeprefix(f"{OUT}/").removesuffix(".out"))


def test_an_output_that_cannot_be_named_is_refused(tmp_path: Path) -> None:
    """The input's name has room for no ``.out``, or the output path is too long."""
    objects = local(tmp_path)
    objects.put(f"s3://b/{'x' * 253}", b"")
    with pytest.raises(ValidationError, match="or its output has a name that is not possible"):
        named(objects, "S3Prefix", "s3://b/")
    objects.put("s3://c/x", b"")
    with pytest.raises(ValidationError, match="or its output has a name that is not possible"):
        named(objects, "S3Prefix", "s3://c/", "s3://out/" + "/".join(["y" * 200] * 5) + "/" + "z" * 18)


def test_an_output_among_the_inputs_of_a_prefix_is_refused(tmp_path: Path) -> None:
    """An output path above the prefix is fine, until a nested folder leads an output back: it would be read as an input
    by the next job, or be written over one of this."""
    objects = local(tmp_path)
    fill(objects, "s3://b/top/in/", **{"in/x": b"1", "x": b"2", "x.out": b"3"})
    with pytest.raises(ValidationError, match=r"s3://b/top/in/x.out.* lies among the inputs"):
        named(objects, "S3Prefix", "s3://b/top/in/", "s3://b/top")
    assert {"s3://b/top/in/in/x": "s3://b/top/x.out"} == named(objects, "S3Prefix", "s3://b/top/in/in/", "s3://b/top")


def test_an_output_that_is_an_input_of_a_manifest_is_refused(tmp_path: Path) -> None:
    """Outputs may lie beside the inputs of a manifest, but on none of them."""
    objects = local(tmp_path)
    fill(objects, "s3://b/in/", **{"x": b"1", "y": b"2", "x.out": b"3"})
    head = {"prefix": "s3://b/in/"}
    with pytest.raises(ValidationError, match=r"s3://b/in/x.out.* lies among the inputs"):
        named(objects, "ManifestFile", manifest(objects, "s3://b/m1", head, "y", "x", "x.out"), "s3://b/in")
    with pytest.raises(ValidationError, match=r"s3://b/in/x.out.* lies among the inputs"):
        beyond = manifest(objects, "s3://b/m2", {"prefix": "s3://b/in"}, "/x", "/x.out")
        named(objects, "ManifestFile", beyond, "s3://b/")
    beside = manifest(objects, "s3://b/m3", head, "x", "y")
    assert ["s3://b/in/x.out", "s3://b/in/y.out"] == list(named(objects, "ManifestFile", beside, "s3://b/in").values())


@pytest.mark.parametrize("kind", ["AugmentedManifestFile", "Converse", "", "s3prefix"])
def test_other_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    """At once, not when the first source is asked for."""
    with pytest.raises(ValidationError, match=f"S3DataType {kind} is not supported"):
        sources(local(tmp_path), kind, "s3://b/a", OUT)


@pytest.mark.parametrize("kind", ["S3Prefix", "ManifestFile"])
@pytest.mark.parametrize(("uri", "path"), [("/etc", OUT), ("s3://b/../c", OUT), ("s3://b/a", "/tmp"), ("s3://b/a", "")])
def test_what_is_no_url_is_refused_at_once(tmp_path: Path, kind: str, uri: str, path: str) -> None:
    """Of the input and of the output."""
    with pytest.raises(ValidationError):
        sources(local(tmp_path), kind, uri, path)


# --- manifests ------------------------------------------------------------------------------------------------------


def test_a_manifest_names_its_objects(objects: ObjectStore, bucket: str) -> None:
    """In its own order; the prefix and a key are put together as they are; outputs are named from the prefix's last
    slash on."""
    fill(objects, f"{bucket}/some/", a__x=b"123", y=b"", other=b"")
    uri = manifest(objects, f"{bucket}/m.json", {"prefix": f"{bucket}/some/"}, "y", "a/x")
    assert {f"{bucket}/some/y": f"{OUT}/y.out", f"{bucket}/some/a/x": f"{OUT}/a/x.out"} == named(
        objects, "ManifestFile", uri
    )
    uri = manifest(objects, f"{bucket}/m.json", {"prefix": f"{bucket}/some/a"}, "/x")
    assert {f"{bucket}/some/a/x": f"{OUT}/a/x.out"} == named(objects, "ManifestFile", uri)
    assert [(f"{bucket}/some/a/x", 3)] == [one[:2] for one in sources(objects, "ManifestFile", uri, OUT)]


def test_a_long_manifest_keeps_its_order(tmp_path: Path) -> None:
    """More objects than are looked up at once."""
    objects = local(tmp_path)
    (tmp_path / "s3" / "b").mkdir(parents=True)
    keys = [f"{number * 7919 % 1201}" for number in range(1201)]
    for key in keys:
        (tmp_path / "s3" / "b" / key).touch()
    uri = manifest(objects, "s3://m/m", {"prefix": "s3://b/"}, *keys)
    assert [f"s3://b/{key}" for key in keys] == list(named(objects, "ManifestFile", uri))


PREFIX = {"prefix": "s3://b/in/"}
NONSENSE: dict[str, tuple[object, str]] = {
    "an object": ({}, "is not a JSON array"),
    "a number": (1, "is not a JSON array"),
    "nothing in it": ([], "does not start with"),
    "no prefix": (["x"], "does not start with"),
    "another object": ([{"source-ref": "s3://b/in/x"}, "x"], "does not start with"),
    "a number as prefix": ([{"prefix": 1}, "x"], "does not start with"),
    "a prefix last": (["x", PREFIX], "does not start with"),
    "no s3 prefix": ([{"prefix": "http://b/in/"}, "x"], "which is no s3:// URL"),
    "a path as prefix": ([{"prefix": "/etc/"}, "passwd"], "which is no s3:// URL"),
    "a prefix that climbs": ([{"prefix": "s3://b/../"}, "x"], "which is no s3:// URL"),
    "no slash after the bucket": ([{"prefix": "s3://b"}, "x"], "lacks a slash after the bucket"),
    "no keys": ([PREFIX], "lists no objects"),
    "a number as key": ([PREFIX, "x", 7], "something else than a key as its item 3"),
    "a second prefix": ([PREFIX, PREFIX], "something else than a key as its item 2"),
    "null": ([PREFIX, None], "something else than a key as its item 2"),
    "no name": ([PREFIX, ""], "the impossible key '' as its item 2"),
    "a folder": ([PREFIX, "x/"], "the impossible key 'x/' as its item 2"),
    "a key that climbs": ([PREFIX, "../../secret"], "the impossible key '../../secret' as its item 2"),
    "a key from the root": ([PREFIX, "/etc/passwd"], "the impossible key '/etc/passwd' as its item 2"),
    "a line break": ([PREFIX, "a\nb"], r"the impossible key 'a\\nb' as its item 2"),
    "a long name": ([PREFIX, "x" * 5000], "the impossible key 'xxx"),
    "a key twice": ([PREFIX, "x", "y", "x"], "lists 'x' twice"),
}


@pytest.mark.parametrize(("content", "reason"), NONSENSE.values(), ids=NONSENSE)
def test_a_manifest_of_nonsense_is_refused_at_once(tmp_path: Path, content: object, reason: str) -> None:
    """With what is wrong, shortly, and which manifest it is."""
    objects = local(tmp_path)
    fill(objects, "s3://b/in/", x=b"", y=b"")
    objects.put("s3://m/m.json", json.dumps(content).encode())
    with pytest.raises(ValidationError, match=reason) as caught:
        sources(objects, "ManifestFile", "s3://m/m.json", OUT)
    assert caught.value.message.startswith("The manifest 's3://m/m.json' ")
    assert 500 > len(caught.value.message)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[" * 100_000, b'["a"] x', b"a,b\n", b"\x1f\x8b", b'[{"prefix":NaN}]', b'["\\ud800"]'],
)
def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever it is instead."""
    objects = local(tmp_path)
    objects.put("s3://m/m", content)
    with pytest.raises(ValidationError, match="is not JSON"):
        sources(objects, "ManifestFile", "s3://m/m", OUT)


def test_a_manifest_that_is_not_there_is_refused(objects: ObjectStore, bucket: str) -> None:
    """It is a mistake in the job, not an input gone missing."""
    with pytest.raises(ValidationError, match="does not exist"):
        sources(objects, "ManifestFile", f"{bucket}/m", OUT)
    fill(objects, f"{bucket}/", folder__x=b"")
    with pytest.raises(ValidationError, match="does not exist"):
        sources(objects, "ManifestFile", f"{bucket}/folder", OUT)


def test_a_manifest_is_not_read_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size has a limit, here of 100 bytes."""
    monkeypatch.setattr(inputs, "MOST_MANIFEST", 100)
    objects = local(tmp_path)
    uri = manifest(objects, "s3://m/m", {"prefix": "s3://b/"}, "x" * 100)
    with pytest.raises(ValidationError, match="more than 100 bytes"):
        sources(objects, "ManifestFile", uri, OUT)


def test_a_listed_object_that_is_not_there_is_named(objects: ObjectStore, bucket: str) -> None:
    """Once its turn comes; those before it are told."""
    fill(objects, f"{bucket}/in/", x=b"")
    uri = manifest(objects, f"{bucket}/m", {"prefix": f"{bucket}/in/"}, "x", "none")
    found = sources(objects, "ManifestFile", uri, OUT)
    assert f"{bucket}/in/x" == next(found).url
    with pytest.raises(ValidationError, match=f"lists '{bucket}/in/none', which does not exist") as caught:
        next(found)
    assert not isinstance(caught.value, ObjectMissing)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON | st.lists(JSON).map(lambda items: [PREFIX, *items]))
@settings(deadline=None, max_examples=100)
def test_any_json_is_a_manifest_or_refused(content: object) -> None:
    """Never another error; and nothing outside the prefix is read."""
    with tempfile.TemporaryDirectory(dir=memory.place()) as folder:
        objects = local(Path(folder))
        objects.put("s3://m/m", json.dumps(content).encode())
        with pytest.raises(ValidationError):
            list(sources(objects, "ManifestFile", "s3://m/m", OUT))
