"""Metrics: summed over processes, outliving them, readable by Prometheus."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from serving.watch import metrics
from serving.watch.metrics import FAMILIES, LATENCY_BUCKETS, Counter, Histogram, Registry
from tests.cloud import answers, client, deploy, said
from tests.server import serve

CALLS = "sagemaker_invocations_total"
GAUGE = "sagemaker_loaded_models"
LATENCY = "sagemaker_model_latency_seconds"
EV = ("default", "AllTraffic")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """This process's metrics."""
    made = Registry(tmp_path, "control")
    yield made
    made.close()


def left_by_the_dead(folder: Path, pid: int, calls: float = 1.0, latencies: tuple[float, ...] = ()) -> None:
    """The files of a worker that has counted, and is gone."""
    worker = Registry(folder, "worker")
    worker.counter(CALLS, *EV).add(calls)
    worker.counter(GAUGE, *EV).set(7)
    for latency in latencies:
        worker.histogram(LATENCY, *EV).observe(latency)
    worker.close()
    for suffix in (".cells", ".index"):
        worker.path.with_suffix(suffix).rename(folder / f"worker.{pid}{suffix}")


def scraped(folder: Path) -> dict[str, Metric]:
    """The scrape page as Prometheus reads it, by family."""
    page, content_type = metrics.exposition(folder)
    assert content_type.startswith("text/plain")
    return {family.name: family for family in parse_text(page.decode())}


def value(folder: Path, name: str, *labels: str) -> float:
    """A counter or gauge, summed over all processes."""
    return metrics.snapshot(folder)[name, labels][0]


def test_counters_and_gauges_are_summed_over_processes(registry: Registry, tmp_path: Path) -> None:
    """Processes that live at the same time: each has its own file."""
    registry.counter(CALLS, *EV).add(3)
    registry.counter(GAUGE, *EV).set(2)
    left_by_the_dead(tmp_path, 999_001, calls=4)
    assert 7.0 == value(tmp_path, CALLS, *EV)
    assert 9.0 == value(tmp_path, GAUGE, *EV)


def test_a_process_that_was_killed_has_lost_nothing(tmp_path: Path) -> None:
    """What was added is in its file at once: SIGKILL loses no count."""
    source = (
        "import os, signal, sys; from pathlib import Path; from serving.watch.metrics import Registry\n"
        f"made = Registry(Path(sys.argv[1]), 'worker'); made.counter({CALLS!r}, *{EV!r}).add(41)\n"
        f"made.counter({CALLS!r}, *{EV!r}).add(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", source, str(tmp_path)], cwd=ROOT, check=False)
    assert -9 == ended.returncode
    assert 42.0 == value(tmp_path, CALLS, *EV)


def test_what_a_dead_process_counted_survives_its_file_and_its_gauges_do_not(
    registry: Registry, tmp_path: Path
) -> None:
    """Counters and histograms move into the parent's; models of a dead worker are in no memory."""
    registry.counter(CALLS, *EV).add(1)
    left_by_the_dead(tmp_path, 999_001, calls=4, latencies=(0.02, 3.0))
    before = metrics.snapshot(tmp_path)
    registry.fold(999_001)
    after = metrics.snapshot(tmp_path)
    assert 5.0 == after[CALLS, EV][0]
    assert before[LATENCY, EV] == after[LATENCY, EV]
    assert (GAUGE, EV) not in after
    assert [registry.path] == list(tmp_path.glob("*.cells"))


def test_a_process_is_folded_once(registry: Registry, tmp_path: Path) -> None:
    """Its death may be reported twice."""
    left_by_the_dead(tmp_path, 999_001, calls=4)
    registry.fold(999_001)
    registry.fold(999_001)
    assert 4.0 == value(tmp_path, CALLS, *EV)


_SCRAPER = f"""
import sys
from pathlib import Path
from serving.watch import metrics
folder = Path(sys.argv[1])
while not (folder / "stop").exists():
    print(metrics.snapshot(folder)[{CALLS!r}, {EV!r}][0], flush=True)
"""


def test_scrapes_beside_folds_count_nothing_twice_and_lose_nothing(registry: Registry, tmp_path: Path) -> None:
    """Two other processes scrape while two hundred dead ones are folded: every scrape sees the same total."""
    for number in range(200):
        left_by_the_dead(tmp_path, 999_000 + number)
    seen: list[str] = []
    with ExitStack() as stack:
        command = [sys.executable, "-c", _SCRAPER, str(tmp_path)]
        readers = [
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)) for _ in "ab"
        ]
        stack.callback((tmp_path / "stop").touch)  # before the readers are waited for
        for number in range(200):
            registry.fold(999_000 + number)
            if number % 10 == 0:  # both have scraped since the last time, whatever the machine is doing
                seen += [reader.stdout.readline() for reader in readers if reader.stdout]
        (tmp_path / "stop").touch()
        seen += [line for reader in readers for line in reader.communicate(timeout=60)[0].splitlines(keepends=True)]
    assert len(seen) >= 40
    assert {"200.0\n"} == set(seen)


def test_a_fold_that_never_ends_holds_up_no_scrape(registry: Registry, tmp_path: Path) -> None:
    """Its process may have been stopped in the middle; what there is, is shown."""
    registry.counter(CALLS, *EV).add(3)
    with metrics._folding(tmp_path):
        assert 3.0 == value(tmp_path, CALLS, *EV)


def test_the_same_labels_are_the_same_cell(registry: Registry) -> None:
    """So that whoever counts may look it up each time."""
    assert registry.counter(CALLS, *EV) is registry.counter(CALLS, *EV)
    assert registry.histogram(LATENCY, *EV) is registry.histogram(LATENCY, *EV)


def test_more_series_than_a_segment_holds(registry: Registry, tmp_path: Path) -> None:
    """A file grows as labels come; cells handed out before stay where they are."""
    first = registry.counter(CALLS, "first", "v")
    histograms = [registry.histogram(LATENCY, f"e{number}", "v") for number in range(1000)]
    for at, histogram in enumerate(histograms):
        histogram.observe(at / 1000)
    first.add(5)
    taken = metrics.snapshot(tmp_path)
    assert 5.0 == taken[CALLS, ("first", "v")][0]
    assert [at / 1000 for at in range(1000)] == [taken[LATENCY, (f"e{at}", "v")][-1] for at in range(1000)]
    assert {1.0} == {sum(taken[LATENCY, (f"e{at}", "v")][:-1]) for at in range(1000)}


@given(st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=50))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_histograms_are_cumulative_for_prometheus(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    """Every bucket counts what is at most its bound; the last one, all; the sum is the sum."""
    folder = tmp_path_factory.mktemp("metrics")
    registry = Registry(folder, "control")
    for one in values:
        registry.histogram(LATENCY, *EV).observe(one)
    samples = {(s.name, s.labels.get("le")): s.value for s in scraped(folder)[LATENCY].samples}
    for bound in (*LATENCY_BUCKETS, math.inf):
        le = "+Inf" if bound == math.inf else str(bound)
        assert sum(one <= bound for one in values) == samples[f"{LATENCY}_bucket", le]
    assert len(values) == samples[f"{LATENCY}_count", None]
    assert math.fsum(values) == pytest.approx(samples[f"{LATENCY}_sum", None])
    registry.close()


def test_every_metric_can_be_scraped_in_both_forms(registry: Registry, tmp_path: Path) -> None:
    """Text for old scrapers, OpenMetrics for those that ask."""
    for name, family in FAMILIES.items():
        labels = [f"a {label}" for label in family.labels]
        if family.kind == "histogram":
            registry.histogram(name, *labels).observe(0.5)
        else:
            registry.counter(name, *labels).add(2)
    found = scraped(tmp_path)
    assert {name.removesuffix("_total") for name in FAMILIES} == set(found)
    page, content_type = metrics.exposition(tmp_path, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    for parsed in parse_openmetrics(page.decode()):
        family = FAMILIES.get(f"{parsed.name}_total") or FAMILIES[parsed.name]
        assert (family.kind, family.help) == (parsed.type, parsed.documentation)
        assert all(set(family.labels) <= set(sample.labels) for sample in parsed.samples)


@given(st.text(min_size=1, max_size=30), st.text(st.sampled_from('"\\\n\r\x1c\u2028{},= é'), max_size=10))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_label_values_survive_whatever_they_hold(
    tmp_path_factory: pytest.TempPathFactory, endpoint: str, variant: str
) -> None:
    """Quotes, backslashes, line breaks of every kind: the series is one, and its labels come back."""
    folder = tmp_path_factory.mktemp("metrics")
    registry = Registry(folder, "control")
    endpoint = endpoint.encode("utf-8", "replace").decode()
    registry.counter(CALLS, endpoint, variant).add(2)
    registry.close()
    (sample,) = scraped(folder)[CALLS.removesuffix("_total")].samples
    assert ({"endpoint": endpoint, "variant": variant}, 2.0) == (sample.labels, sample.value)


@pytest.mark.parametrize("cut", [1, 5, 20, 40])
def test_an_index_line_cut_by_a_death_costs_only_itself(registry: Registry, tmp_path: Path, cut: int) -> None:
    """The process died while it wrote the line; what it had counted before is there."""
    left_by_the_dead(tmp_path, 999_001, calls=4)
    index = tmp_path / "worker.999001.index"
    whole = index.read_text()
    index.write_text(whole + whole.splitlines()[0].replace("invocations", "later")[:-cut])
    assert 4.0 == value(tmp_path, CALLS, *EV)
    registry.fold(999_001)
    assert 4.0 == value(tmp_path, CALLS, *EV)


@pytest.mark.parametrize("line", ["17", "null", '["x"]', '["sagemaker_unknown", [], 0, 1]', '["\xff"]', ""])
def test_lines_that_mean_nothing_are_passed_over(tmp_path: Path, line: str) -> None:
    """Another version's metric, or rubbish on the disk: no scrape may fail for it."""
    left_by_the_dead(tmp_path, 999_001, calls=4)
    index = tmp_path / "worker.999001.index"
    index.write_bytes(line.encode("latin-1") + b"\n" + index.read_bytes())
    assert 4.0 == value(tmp_path, CALLS, *EV)


def test_a_file_without_its_other_half_is_passed_over(registry: Registry, tmp_path: Path) -> None:
    """A process has two files and may die between making them, or while they are removed."""
    registry.counter(CALLS, *EV).add(1)
    (tmp_path / "worker.999001.cells").write_bytes(b"\0" * 8)
    (tmp_path / "worker.999002.index").write_text('["sagemaker_invocations_total", ["a", "b"], 0, 1]\n')
    assert {(CALLS, EV)} == set(metrics.snapshot(tmp_path))


def test_a_folder_that_is_not_there_has_no_metrics(tmp_path: Path) -> None:
    """A front may be asked before anybody has counted."""
    assert {} == metrics.snapshot(tmp_path / "none")


def test_files_name_their_process(registry: Registry) -> None:
    """For people who look into the folder, and for folding."""
    assert f"control.{os.getpid()}.cells" == registry.path.name


# --- endpoints that go ------------------------------------------------------------------------------------------------


@pytest.fixture
def processes(registry: Registry, tmp_path: Path) -> Iterator[tuple[Registry, Registry]]:
    """Control's metrics and a front's, as far as the folder knows."""
    front = Registry(tmp_path, "front-1")
    yield registry, front
    front.close()


def count(registry: Registry, holder: tuple[str, str], amount: float) -> tuple[Counter, Histogram]:
    """Calls of an endpoint, and their latencies of one second each."""
    calls, latency = registry.counter(CALLS, *holder), registry.histogram(LATENCY, *holder)
    calls.add(amount)
    for _ in range(int(amount)):
        latency.observe(1.0)
    return calls, latency


def test_three_hundred_endpoints_that_came_and_went_leave_nothing(
    processes: tuple[Registry, Registry], tmp_path: Path
) -> None:
    """Under names of their own: neither the page nor any file has grown, and what stays is what it was."""
    sizes = set()
    for number in range(300):
        here = {EV, (f"e{number}", "v")}
        for process in processes:
            count(process, (f"e{number}", "v"), 1)
        processes[0].counter(CALLS, *EV).add()
        processes[0].show(here)
        assert 2.0 == value(tmp_path, CALLS, f"e{number}", "v")
        processes[0].show({EV})
        assert {EV} == {labels for _, labels in metrics.snapshot(tmp_path)}
        for process in processes:
            process.keep({EV})
        if number >= 10:
            sizes.add(tuple(sorted((one.name, one.stat().st_size) for one in tmp_path.glob("*.*"))))
    assert 1 == len(sizes)
    assert 300.0 == value(tmp_path, CALLS, *EV)
    page, _ = metrics.exposition(tmp_path)
    assert 1 == sum(line.startswith(CALLS) for line in page.decode().splitlines())


def test_an_endpoint_made_again_begins_at_zero_whatever_its_last_calls_still_do(
    processes: tuple[Registry, Registry], tmp_path: Path
) -> None:
    """Who still holds the old series counts into cells that mean nothing, and are nobody else's while that lasts."""
    control, front = processes
    late = count(front, EV, 5)
    control.show(())
    front.keep(())
    again = count(front, EV, 2)
    count(front, ("other", "v"), 3)
    late[0].add(100)
    late[1].observe(60.0)
    control.show({EV, ("other", "v")})
    taken = metrics.snapshot(tmp_path)
    assert [2.0, 3.0] == [taken[CALLS, one][0] for one in (EV, ("other", "v"))]
    assert [2.0, 3.0] == [taken[LATENCY, one][-1] for one in (EV, ("other", "v"))]
    assert again[0] is front.counter(CALLS, *EV) is not late[0]
    assert 105.0 == late[0].value


def test_no_scrape_sees_part_of_a_sum(processes: tuple[Registry, Registry], tmp_path: Path) -> None:
    """From when the first process lets go until the last does, the endpoint is not shown; others are."""
    control, front = processes
    for process in (control, front):
        count(process, EV, 5)
        count(process, ("other", "v"), 1)
    control.show({("other", "v")})
    for process in (control, front):
        process.keep({("other", "v")})
        assert {(CALLS, ("other", "v")), (LATENCY, ("other", "v"))} == set(metrics.snapshot(tmp_path))
        assert 2.0 == value(tmp_path, CALLS, "other", "v")


_CHECKER = """
import sys
from pathlib import Path
from prometheus_client.parser import text_string_to_metric_families as parse
from serving.watch import metrics
folder = Path(sys.argv[1])
while not (folder / "stop").exists():
    for (name, labels), values in metrics.snapshot(folder).items():
        if values[-1] != 2 * int(labels[0]):
            print("wrong", name, labels, values, flush=True)
    list(parse(metrics.exposition(folder)[0].decode()))
    print("scraped", flush=True)
"""


def test_scrapes_beside_endpoints_that_go_never_show_a_wrong_value(
    processes: tuple[Registry, Registry], tmp_path: Path
) -> None:
    """Two other processes scrape while three hundred endpoints come and go, each taking over another's cells: every
    page parses, and every endpoint has its own number or is not there."""
    processes[0].show(())
    with ExitStack() as stack:
        command = [sys.executable, "-c", _CHECKER, str(tmp_path)]
        readers = [
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)) for _ in "ab"
        ]
        stack.callback((tmp_path / "stop").touch)
        seen: list[str] = []
        for number in range(1, 301):
            here = {(str(one), "v") for one in range(max(1, number - 3), number + 1)}
            for process in processes:
                count(process, (str(number), "v"), number)
            processes[0].show(here)
            for process in processes:
                process.keep(here)
            if number % 10 == 0:
                seen += [reader.stdout.readline() for reader in readers if reader.stdout]
        (tmp_path / "stop").touch()
        seen += [line for reader in readers for line in reader.communicate(timeout=60)[0].splitlines(keepends=True)]
    assert {"scraped\n"} == set(seen)


class HeldUp(type(Path())):  # type: ignore[misc]  # the class of this platform's paths
    """A path whose reader is held up once before it gets the bytes, for as long as ``meanwhile`` takes."""

    meanwhile: list[Callable[[], object]]

    def read_bytes(self) -> bytes:
        """The file's bytes, later than asked for."""
        while self.meanwhile:
            self.meanwhile.pop()()
        return bytes(super().read_bytes())


def test_a_scrape_that_was_stopped_while_cells_changed_hands_reads_again(registry: Registry) -> None:
    """It has read the old index, and would take another endpoint's cells for those of one that has gone."""
    count(registry, EV, 5)

    def change_hands() -> None:
        registry.keep(())
        count(registry, ("other", "v"), 3)

    HeldUp.meanwhile = [change_hands]
    read = {labels: values[-1] for _, labels, values in metrics._read(HeldUp(registry.path))}
    assert {("other", "v"): 3.0} == read


_NAMES = st.sampled_from("abcde")


@given(
    st.lists(
        st.tuples(st.just("count"), _NAMES, st.integers(1, 9))
        | st.tuples(st.just("hold"), _NAMES, st.integers(1, 9))
        | st.tuples(st.just("late"), st.just(""), st.integers(1, 9))
        | st.tuples(st.just("keep"), st.frozensets(_NAMES), st.just(0)),
        max_size=60,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_comes_goes_and_comes_back_the_numbers_are_those_of_a_dict(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str | frozenset[str], int]]
) -> None:
    """Series made, held on to, let go of, counted late, and made again, in any order."""
    folder = tmp_path_factory.mktemp("metrics")
    registry = Registry(folder, "control")
    expected: dict[str, int] = {}
    held: dict[str, tuple[Counter, Histogram]] = {}
    gone: list[tuple[Counter, Histogram]] = []
    for what, name, amount in steps:
        if what in ("count", "hold"):
            made = count(registry, (str(name), "v"), amount)
            expected[str(name)] = expected.get(str(name), 0) + amount
            if what == "hold":
                held[str(name)] = made
            del made
        elif what == "keep":
            registry.keep({(one, "v") for one in name})
            gone += [held.pop(one) for one in list(held) if one not in name]
            expected = {one: number for one, number in expected.items() if one in name}
        for calls, latency in gone if what == "late" else ():
            calls.add(amount)
            latency.observe(float(amount))
        taken = metrics.snapshot(folder)
        assert expected == {labels[0]: values[0] for (metric, labels), values in taken.items() if metric == CALLS}
        assert expected == {labels[0]: values[-1] for (metric, labels), values in taken.items() if metric == LATENCY}
    registry.close()


def test_what_a_dead_process_counted_of_an_endpoint_that_has_gone_goes_too(registry: Registry, tmp_path: Path) -> None:
    """Its front or worker may be buried after it; even one that died while it put a new index in place."""
    registry.show({("other", "v")})
    left_by_the_dead(tmp_path, 999_001, calls=4)
    (tmp_path / "worker.999001.fresh").touch()
    registry.fold(999_001)
    assert {} == metrics.snapshot(tmp_path)
    assert [] == list(registry.keep(()))
    registry.show({EV})
    assert {} == metrics.snapshot(tmp_path)
    assert [] == list(tmp_path.glob("worker.*"))


def test_without_room_for_a_new_index_the_series_stay_until_there_is(registry: Registry, tmp_path: Path) -> None:
    """A full disk costs no value and no call."""
    count(registry, EV, 5)
    (tmp_path / f"control.{os.getpid()}.fresh").mkdir()  # as good as a full disk
    (tmp_path / "shown.fresh").mkdir()
    registry.show(())
    assert [EV] == list(registry.keep(()))
    assert 5.0 == value(tmp_path, CALLS, *EV)
    (tmp_path / f"control.{os.getpid()}.fresh").rmdir()
    (tmp_path / "shown.fresh").rmdir()
    registry.show(())
    assert {} == metrics.snapshot(tmp_path)
    assert [] == list(registry.keep(()))


def test_the_page_forgets_a_deleted_endpoint_and_one_of_its_name_counts_from_one(tmp_path: Path) -> None:
    """On a real server: after each round the page is as long as before, in every process's part of it."""
    with serve(tmp_path, "--allow-code", "--fronts", "2") as server:
        sagemaker, runtime = client(server), client(server, "sagemaker-runtime")
        model = answers(server, "one")
        lengths = set()
        for _ in range(3):
            deploy(sagemaker, "e", model)
            for _ in range(4):
                assert "one:x" == said(runtime, "e")
            assert 4.0 == server.metric(CALLS, endpoint="e")
            assert 4.0 == server.metric(f"{LATENCY}_count", endpoint="e")
            assert 1.0 == server.metric("sagemaker_worker_start_seconds_count", endpoint="e")
            server.eventually(lambda: server.metric("sagemaker_workers", endpoint="e", state="READY") == 1.0)
            sagemaker.delete_endpoint(EndpointName="e")
            with server.client() as http:
                page = http.get("/metrics").text
            assert 'endpoint="e"' not in page
            lengths.add(len(page.splitlines()))
            sagemaker.delete_endpoint_config(EndpointConfigName="e")
            sagemaker.delete_model(ModelName="e")
    assert 1 == len(lengths)
