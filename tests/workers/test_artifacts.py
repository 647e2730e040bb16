"""Artifacts by name, and the disk cache that workers share."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import LoadFailed, ModelNotReady, UnknownModel, ValidationError
from serving.workers.artifacts import ArtifactCache, locate
from tests import memory

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

# --- names ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A prefix with a file, a folder, an archive and things that are no models; a secret beside it."""
    home = tmp_path / "models"
    for name in ("a.onnx", "team/b.ubj", "packed.tar.gz", "folder/model.onnx", ".hidden/x.onnx"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    (tmp_path / "secret.onnx").write_text("secret")
    (home / "out.onnx").symlink_to(tmp_path / "secret.onnx")
    (home / "way").symlink_to(tmp_path)
    os.mkfifo(home / "pipe")
    return home


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.onnx", "a.onnx"),
        ("team/b.ubj", "team/b.ubj"),
        ("folder", "folder"),
        ("packed", "packed.tar.gz"),
        ("packed.tar.gz", "packed.tar.gz"),
    ],
)
def test_a_target_model_is_found_beneath_its_prefix(prefix: Path, name: str, found: str) -> None:
    """A file, a folder, or an archive with and without its ending."""
    assert prefix / found == locate(prefix, name)


@pytest.mark.parametrize(
    "name",
    [
        "absent",
        "absent.tar.gz",
        "team/absent",
        "out.onnx",
        "way/secret.onnx",
        "pipe",
        ".hidden/x.onnx",
        "a.onnx/x",
        "n" * 250,
    ],
)
def test_what_is_not_there_is_unknown_in_sagemakers_words(prefix: Path, name: str) -> None:
    """Hidden, special and linked-away files look just like absent ones; no path of the host is shown."""
    with pytest.raises(UnknownModel) as caught:
        locate(prefix, name)
    assert f"Failed to download model data (bucket: models, key: {name})." == str(caught.value)


HOSTILE = ["", "/", "/etc/passwd", "..", "../secret.onnx", "team/../../secret.onnx", "team//b.ubj", "./a.onnx"]
HOSTILE += ["a.onnx/", "a\0b", "a\nb", "team\\b.ubj", "n" * 1025, "a/" + "n" * 256, "a\u202eb"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(prefix: Path, name: str) -> None:
    """As the caller's error, and not as a model that is missing."""
    with pytest.raises(ValidationError) as caught:
        locate(prefix, name)
    assert not isinstance(caught.value, UnknownModel)
    assert str(prefix) not in str(caught.value)


@settings(max_examples=200)
@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(st.sampled_from(["..", ".", "way", "team", "b.ubj", "%2e%2e", "~"])).map("/".join),
    )
)
def test_no_name_leads_out_of_the_prefix(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Found beneath it, or one of the two refusals."""
    home = tmp_path_factory.getbasetemp() / "prefix-for-names"
    (home / "team").mkdir(parents=True, exist_ok=True)
    (home / "team" / "b.ubj").write_text("b")
    with suppress(ValidationError):
        assert locate(home, name).is_relative_to(home)


# --- the disk cache ---------------------------------------------------------------------------------------------------


def archive(path: Path, size: int = 1000, fill: bytes = b"m") -> Path:
    """A ``.tar.gz`` whose one file has ``size`` bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as packing:
        info = tarfile.TarInfo("model.txt")
        info.size = size
        packing.addfile(info, io.BytesIO((fill * size)[:size]))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    """Room for two and a half archives of 1,000 bytes."""
    return ArtifactCache(tmp_path / "cache", 2500)


def entries(cache_folder: Path) -> set[str]:
    """Digests that are on the disk."""
    return {entry.name for entry in cache_folder.glob("boot-*/entries/*")}


def test_folders_and_files_are_used_where_they_are(tmp_path: Path, cache: ArtifactCache) -> None:
    """Only archives are copied; the cache's folder is not even made."""
    (tmp_path / "folder.tar.gz").mkdir()
    (tmp_path / "model.onnx").write_text("x")
    for source in (tmp_path / "folder.tar.gz", tmp_path / "model.onnx"):
        assert source == cache.fetch(source)
        cache.pin(source)
        cache.unpin(source)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["m.tar.gz", "m.tgz"])
def test_an_archive_is_unpacked_once(tmp_path: Path, cache: ArtifactCache, name: str) -> None:
    """The second fetch reads nothing: the archive may even be unreadable by then."""
    source = archive(tmp_path / name)
    first = cache.fetch(source)
    assert b"m" * 1000 == (first / "model.txt").read_bytes()
    status = source.stat()
    source.write_bytes(b"\0" * status.st_size)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert first == cache.fetch(source)
    assert first == ArtifactCache(tmp_path / "cache", 2500).fetch(source)


def test_a_folder_with_a_model_archive_stands_for_it(tmp_path: Path, cache: ArtifactCache) -> None:
    """``.../output/model.tar.gz`` is where training jobs put it; the folder's own name is what people call it."""
    archive(tmp_path / "output" / "model.tar.gz")
    assert b"m" * 1000 == (cache.fetch(tmp_path / "output") / "model.txt").read_bytes()


def test_a_replaced_archive_is_another_artifact(tmp_path: Path, cache: ArtifactCache) -> None:
    """Known by path, time, size and inode; kept by content."""
    first = cache.fetch(archive(tmp_path / "m.tar.gz", fill=b"1"))
    second = cache.fetch(archive(tmp_path / "m.tar.gz", fill=b"2"))
    assert first != second
    assert b"2" * 1000 == (second / "model.txt").read_bytes()


def test_equal_content_is_kept_once(tmp_path: Path, cache: ArtifactCache) -> None:
    """Two names, one entry."""
    source = archive(tmp_path / "a.tar.gz")
    (tmp_path / "b.tar.gz").write_bytes(source.read_bytes())
    assert cache.fetch(source) == cache.fetch(tmp_path / "b.tar.gz")
    assert 1 == len(entries(tmp_path / "cache"))


def test_the_least_recently_used_leaves_when_room_is_needed(tmp_path: Path, cache: ArtifactCache) -> None:
    """And what names it leaves with it: nothing grows."""
    a, b, c = (archive(tmp_path / f"{name}.tar.gz", fill=name.encode()) for name in "abc")
    paths = {source: cache.fetch(source) for source in (a, b)}
    cache.fetch(a)
    paths[c] = cache.fetch(c)
    assert {paths[a].name, paths[c].name} == entries(tmp_path / "cache")
    for kind in ("uses", "sources"):
        assert 2 == len(list((tmp_path / "cache").glob(f"boot-*/{kind}/*")))
    assert [] == list((tmp_path / "cache").glob("boot-*/incoming/*"))


def test_what_is_pinned_stays(tmp_path: Path, cache: ArtifactCache) -> None:
    """In every process; when nothing else can leave, the newcomer waits its turn."""
    a, b, c = (archive(tmp_path / f"{name}.tar.gz", fill=name.encode()) for name in "abc")
    held = [cache.fetch(a), cache.fetch(b)]
    for path in held:
        cache.pin(path)
    other = ArtifactCache(tmp_path / "cache", 2500)
    with pytest.raises(ModelNotReady):
        other.fetch(c)
    cache.unpin(held[0])
    assert b"c" * 1000 == (other.fetch(c) / "model.txt").read_bytes()
    assert held[1].is_dir()
    assert not held[0].exists()


def test_what_a_thread_fetched_last_is_in_use(tmp_path: Path, cache: ArtifactCache) -> None:
    """Nobody evicts an artifact between its fetch and its load; the thread's next fetch lets go of it."""
    a, b, c = (archive(tmp_path / f"{name}.tar.gz", size=1200, fill=name.encode()) for name in "abc")
    mine, others = cache.fetch(a), ArtifactCache(tmp_path / "cache", 2500)
    thread = threading.Thread(target=lambda: [others.fetch(b), others.fetch(c)])
    thread.start()
    thread.join()
    assert mine.is_dir()
    cache.fetch(b)
    assert not mine.is_dir()


def test_pinning_what_has_left_says_so(tmp_path: Path, cache: ArtifactCache) -> None:
    """The caller fetches again."""
    gone = cache.fetch(archive(tmp_path / "a.tar.gz", size=2000))
    cache.fetch(archive(tmp_path / "b.tar.gz", size=2000, fill=b"b"))
    with pytest.raises(ModelNotReady):
        cache.pin(gone)


def test_an_artifact_larger_than_the_cache_fails_to_load(tmp_path: Path, cache: ArtifactCache) -> None:
    """Without evicting the others for nothing."""
    kept = cache.fetch(archive(tmp_path / "a.tar.gz"))
    with pytest.raises(LoadFailed, match="more than 2500 bytes"):
        cache.fetch(archive(tmp_path / "big.tar.gz", size=2600))
    assert {kept.name} == entries(tmp_path / "cache")


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_damaged_archive_leaves_nothing(tmp_path: Path, cache: ArtifactCache, content: bytes) -> None:
    """Neither an entry nor work in progress; the repaired archive then loads."""
    (tmp_path / "m.tar.gz").write_bytes(content)
    with pytest.raises(LoadFailed):
        cache.fetch(tmp_path / "m.tar.gz")
    assert set() == entries(tmp_path / "cache")
    assert [] == list((tmp_path / "cache").glob("boot-*/incoming/*"))
    assert cache.fetch(archive(tmp_path / "m.tar.gz")).is_dir()


def test_an_absent_archive_fails_to_load(tmp_path: Path, cache: ArtifactCache) -> None:
    """It may have been removed since it was located."""
    with pytest.raises(LoadFailed, match=r"'gone\.tar\.gz' could not be fetched: No such file"):
        cache.fetch(tmp_path / "gone.tar.gz")


def test_what_earlier_boots_and_dead_processes_left_is_thrown_away(tmp_path: Path, cache: ArtifactCache) -> None:
    """A power cut may have torn the files of another boot; a killed worker leaves half an archive."""
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    dead = int(child.stdout)
    home = ArtifactCache(tmp_path / "cache", 2500).fetch(archive(tmp_path / "a.tar.gz")).parents[1]
    for stale in (tmp_path / "cache" / "boot-before" / "entries", home / "incoming" / f"{dead}-1" / "content"):
        stale.mkdir(parents=True)
    cache.fetch(archive(tmp_path / "b.tar.gz", fill=b"b"))
    assert [home] == list((tmp_path / "cache").iterdir())
    assert [] == list((home / "incoming").iterdir())


FETCH = """
import sys
from pathlib import Path
from serving.workers.artifacts import ArtifactCache
cache = ArtifactCache(Path(sys.argv[1]), int(sys.argv[2]))
sys.stdin.read()
for source in sys.argv[3:] * 20:
    name = Path(source).name[:1]
    assert (cache.fetch(Path(source)) / "model.txt").read_text() == name * 1000, source
print("fine")
"""


@pytest.mark.parametrize("budget", [100_000, 4500])
def test_processes_that_race_see_whole_artifacts(tmp_path: Path, budget: int) -> None:
    """Four processes, six archives, with room for all and with room for four: every read is whole."""
    sources = [str(archive(tmp_path / f"{name}.tar.gz", fill=name.encode())) for name in "abcdef"]
    command = [sys.executable, "-c", FETCH, str(tmp_path / "cache"), str(budget)]
    racers = [
        subprocess.Popen(
            [*command, *sources[turn:], *sources[:turn]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for turn in range(4)
    ]
    for racer in racers:  # all are started: closing their input lets them go
        assert racer.stdin is not None
        racer.stdin.close()
        racer.stdin = None
    assert ["fine"] * 4 == [racer.communicate(timeout=100)[0].strip() for racer in racers]
    total = sum(file.stat().st_size for file in (tmp_path / "cache").glob("boot-*/entries/*/*"))
    assert total <= budget


def test_threads_of_one_process_may_fetch_together(tmp_path: Path, count_open: Callable[[], int]) -> None:
    """One unpacking, the same folder for all; with each thread goes its hold on what it fetched."""
    before = count_open()
    cache, source = ArtifactCache(tmp_path / "cache", 5000), archive(tmp_path / "a.tar.gz")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(cache.fetch(source))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 8 == len(found)
    assert 1 == len(set(found))
    assert before == count_open()


def test_closing_lets_go_of_everything(tmp_path: Path, cache: ArtifactCache, count_open: Callable[[], int]) -> None:
    """No descriptor is left behind."""
    before = count_open()
    path = cache.fetch(archive(tmp_path / "a.tar.gz"))
    cache.pin(path)
    cache.pin(path)
    assert before + 3 == count_open()
    cache.close()
    assert before == count_open()


@pytest.fixture
def count_open() -> Callable[[], int]:
    """How many files this process has open."""
    return lambda: len(list(Path("/proc/self/fd").iterdir()))
