"""Unpacking archives: what is inside comes out, and nothing else ever does."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import LoadFailed
from serving.workers.archives import UnpackLimits, unpack
from tests import memory

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

LIMITS = UnpackLimits(total_bytes=1 << 20, members=50, depth=6)


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: object
) -> tuple[tarfile.TarInfo, bytes]:
    """One member, as tarfile writes it."""
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def packed(members: Iterable[tuple[tarfile.TarInfo, bytes]], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar.gz of the members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=kind) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    """Files beneath a folder by relative name."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Unpacks hostile bytes; gives the refusal's text after checking that nothing was left anywhere."""

    def attempt(content: bytes, limits: UnpackLimits = LIMITS) -> str:
        (tmp_path / "room").mkdir(exist_ok=True)
        (tmp_path / "model.tar.gz").write_bytes(content)
        with pytest.raises(LoadFailed) as caught:
            unpack(tmp_path / "model.tar.gz", tmp_path / "room" / "model", limits)
        assert [] == list((tmp_path / "room").iterdir())
        assert {"room", "model.tar.gz"} == {entry.name for entry in tmp_path.iterdir()}
        assert str(tmp_path) not in str(caught.value)
        return str(caught.value)

    return attempt


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_ordinary_archive_comes_out_whole(tmp_path: Path, kind: int) -> None:
    """Every dialect of tar; long names, empty files, folders; private modes; the digest is the archive's."""
    files = {
        "model.onnx": b"x" * 100_000,
        "code/inference.py": b"pass",
        "empty": b"",
        f"long/{'n' * 90}/{'m' * 90}": b"long",
    }
    entries = [member(f"./{name}", content) for name, content in files.items()]
    content = packed([member("./", kind=tarfile.DIRTYPE), member("./code/", kind=tarfile.DIRTYPE), *entries], kind)
    (tmp_path / "model.tar.gz").write_bytes(content)
    digest = unpack(tmp_path / "model.tar.gz", tmp_path / "model", LIMITS)
    assert hashlib.sha256(content).hexdigest() == digest
    assert files == tree(tmp_path / "model")
    assert 0o700 == stat.S_IMODE((tmp_path / "model").stat().st_mode)
    assert {0o600} == {stat.S_IMODE((tmp_path / "model" / name).stat().st_mode) for name in files}


def test_the_tar_program_is_understood(tmp_path: Path) -> None:
    """What people pack with."""
    (tmp_path / "src" / "code").mkdir(parents=True)
    (tmp_path / "src" / "code" / "ünï.py").write_text("x = 1")
    subprocess.run(["tar", "czf", tmp_path / "model.tar.gz", "-C", tmp_path / "src", "."], check=True)
    unpack(tmp_path / "model.tar.gz", tmp_path / "model", LIMITS)
    assert {"code/ünï.py": b"x = 1"} == tree(tmp_path / "model")


def test_several_gzip_members_are_one_stream(tmp_path: Path) -> None:
    """RFC 1952 allows it, and some packers write it."""
    raw = gzip.decompress(packed([member("a", b"1" * 3000)]))
    (tmp_path / "model.tgz").write_bytes(gzip.compress(raw[:700]) + gzip.compress(raw[700:]))
    unpack(tmp_path / "model.tgz", tmp_path / "model", LIMITS)
    assert {"a": b"1" * 3000} == tree(tmp_path / "model")


def test_an_existing_folder_is_never_written_into(tmp_path: Path) -> None:
    """Fresh or not at all."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model.tar.gz").write_bytes(packed([member("a")]))
    with pytest.raises(FileExistsError):
        unpack(tmp_path / "model.tar.gz", tmp_path / "model", LIMITS)
    assert {} == tree(tmp_path / "model")


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"Z",
    ],
)
def test_only_files_and_folders_come_out(refused: Callable[..., str], kind: bytes) -> None:
    """A link inside the folder is refused like one outside it: there are no harmless ones in a chain."""
    assert "only files and folders" in refused(packed([member("a"), member("b", kind=kind, linkname="a")]))


HOSTILE = [
    "/etc/passwd",
    "../out",
    "a/../../out",
    "a/..",
    "..",
    "a//b",
    "a\\b",
    "a\nb",
    "a\x7fb",
    "a\u202eb",
    " a",
    "a/ b",
    "~/\x00x",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(refused: Callable[..., str], name: str) -> None:
    """By the name itself, not by where it would lead."""
    assert "the archive holds" in refused(packed([member(name, b"x", pax_headers={"path": name})]))


def test_a_name_that_is_not_utf8_is_refused(refused: Callable[..., str]) -> None:
    """What the file system would show is anybody's guess."""
    assert "not UTF-8" in refused(packed([member("caf\udce9")], tarfile.GNU_FORMAT))


@pytest.mark.parametrize(
    "members",
    [
        [member("a", b"1"), member("a", b"2")],
        [member("a", b"1"), member("./a", b"2")],
        [member("d/", kind=tarfile.DIRTYPE), member("d/", kind=tarfile.DIRTYPE)],
        [member("a", b"1"), member("a/b", b"2")],
        [member("a/b", b"1"), member("a", b"2")],
    ],
)
def test_one_name_is_used_once(refused: Callable[..., str], members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Two readers of such an archive would see two models."""
    assert "one name" in refused(packed(members))


def test_limits_hold(refused: Callable[..., str]) -> None:
    """Bytes, members, depth, names and ratio, each on its own."""
    many = [member(f"f{index}") for index in range(51)]
    assert "more than 50 members" in refused(packed(many))
    assert "more than 1048576 bytes" in refused(packed([member("a", os.urandom((1 << 20) + 1))]))
    assert "deeper than 6" in refused(packed([member("a/b/c/d/e/f/g")]))
    assert "a part of more than 255 bytes" in refused(packed([member("n" * 256)]))
    assert "a name of more than 1024 bytes" in refused(packed([member("/".join(["n" * 250] * 5))]))
    wide = UnpackLimits(total_bytes=1 << 30)
    assert "more than 200 times its size" in refused(packed([member("zeros", bytes(1 << 25))]), wide)


def test_a_declared_size_costs_nothing(refused: Callable[..., str]) -> None:
    """An archive of a few bytes that claims to hold terabytes, or an extended header of gigabytes."""
    head = bytearray(tarfile.TarInfo("a").tobuf())

    def claiming(size: int, kind: bytes) -> bytes:
        info = tarfile.TarInfo("a")
        info.size, info.type = size, kind
        return gzip.compress(info.tobuf(tarfile.GNU_FORMAT))

    assert "more than 1048576 bytes" in refused(claiming(1 << 42, tarfile.REGTYPE))
    for kind in (b"x", b"g", b"L"):
        assert "extended header" in refused(claiming(1 << 33, kind))
    head[124:136] = b"\xff" * 12
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + sum(head[156:]) + 256)
    assert "negative or absurd" in refused(gzip.compress(bytes(head)))


def test_endless_extended_headers_are_counted(refused: Callable[..., str]) -> None:
    """Headers that describe no member."""
    header, _ = member("h", b"11 path=ab\n")
    header.type, header.size = b"x", 11
    block = header.tobuf() + b"11 path=ab\n".ljust(512, b"\0")
    assert "more than 50 members" in refused(gzip.compress(block * 300))


def test_sparse_files_are_refused(refused: Callable[..., str]) -> None:
    """Their size on disk is not their size."""
    assert "sparse" in refused(packed([member("a", b"x", pax_headers={"GNU.sparse.major": "1"})]))


WHOLE = packed([member("a/b", b"content" * 500), member("c", b"more")])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an archive at all",
        WHOLE[:-1],
        WHOLE[: len(WHOLE) // 2],
        WHOLE + b"\0",
        WHOLE + b"\0" * 512,
        WHOLE + b"garbage",
        WHOLE + WHOLE,
        gzip.compress(gzip.decompress(WHOLE) + b"hidden"),
        gzip.compress(gzip.decompress(WHOLE)[:1500]),
        gzip.compress(b""),
        gzip.compress(b"\1" * 2048),
        gzip.decompress(WHOLE),
        gzip.compress(b"") * 20_000,
    ],
    ids=lambda content: f"{len(content)} bytes",
)
def test_damaged_archives_are_refused(refused: Callable[..., str], content: bytes) -> None:
    """Cut, padded, doubled, with something behind the end, not gzip, not tar, empty."""
    assert "archive" in refused(content)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flipped_bits_never_write_outside(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever a damaged tar says: LoadFailed, or files beneath the new folder."""
    raw = bytearray(gzip.decompress(WHOLE))
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, 1535))] = data.draw(st.integers(0, 255))
    home = tmp_path_factory.mktemp("flipped")
    (home / "m.tar.gz").write_bytes(gzip.compress(bytes(raw)))
    try:
        unpack(home / "m.tar.gz", home / "model", LIMITS)
    except LoadFailed:
        assert not (home / "model").exists()
    assert {entry.name for entry in home.iterdir()} <= {"m.tar.gz", "model"}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), min_size=1, max_size=4))
def test_any_names_stay_inside_or_are_refused(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """Names out of all of Unicode, slashes and dots among them."""
    home = tmp_path_factory.mktemp("names")
    room = home / "room"
    room.mkdir()
    (home / "m.tar.gz").write_bytes(packed(member(name, b"x", pax_headers={"path": name}) for name in names))
    try:
        unpack(home / "m.tar.gz", room / "model", LIMITS)
    except LoadFailed:
        assert [] == list(room.iterdir())
    else:
        assert set(map(b"x".__eq__, tree(room / "model").values())) == {True}
        assert len(names) == len(tree(room / "model"))
    assert {"m.tar.gz", "room"} == {entry.name for entry in home.iterdir()}


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "/"]), min_size=1, max_size=6).map("/".join))
@settings(max_examples=150, deadline=None)
def test_paths_made_of_dots_stay_inside_or_are_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Every way up."""
    test_any_names_stay_inside_or_are_refused.hypothesis.inner_test(tmp_path_factory, [name or "."])
