"""Transform jobs from end to end: one server, its jobs process and the jobs' own workers, asked by unmodified boto3."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import cloud
from tests.batch import Batch
from tests.server import serve
from tests.toys import ROW

TOLERANT = {"SERVING_TRANSFORM_MAX_BAD_RECORDS": "2"}
#: One call of a script may wait while another is answered.
TWO = {"InstanceCount": 2}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batch]:
    """A server for the whole module."""
    with serve(tmp_path_factory.mktemp("transform"), "--allow-code") as server:
        yield Batch(server).make_models()


def row(number: int) -> str:
    """A row of the sum model whose answer is ``number`` + 29."""
    return ",".join([str(number), *["1"] * 29])


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_rows_are_joined_with_their_answers_in_order(batch: Batch) -> None:
    """Whatever the requests they were sent in, several at a time."""
    rows = [row(number) for number in range(40_000)]
    batch.put("s3://in/joined/a.csv", "\n".join(rows) + "\n")
    done = batch.run("s3://in/joined/", "sum", MaxPayloadInMB=1, DataProcessing={"JoinSource": "Input"})
    assert "Completed" == done.status, done.reason
    expected = "".join(f"{one},{number + 29}.0\n" for number, one in enumerate(rows))
    assert expected == done.outputs["a.csv.out"].decode()


def test_each_object_has_its_output_below_the_output_path(batch: Batch) -> None:
    """The key below the prefix's last slash, and ``.out``; an empty object has an empty one, without a call."""
    objects = {"a.txt": "1\n2\n", "deep/er/b.txt": "3", "empty.txt": ""}
    for key, content in objects.items():
        batch.put(f"s3://in/several/{key}", content)
    done = batch.run("s3://in/several/")
    expected = {"a.txt.out": b"1!\n2!\n", "deep/er/b.txt.out": b"3!\n", "empty.txt.out": b""}
    assert ("Completed", expected) == (done.status, done.outputs)


def test_many_small_objects(batch: Batch) -> None:
    """More than are run at a time; none is lost, none is told twice."""
    for number in range(100):
        batch.put(f"s3://in/many/{number:03}.txt", f"{number}\n")
    name = batch.begin("s3://in/many/")
    assert "Completed" == batch.ended(name)["TransformJobStatus"]
    expected = {f"{number:03}.txt.out": f"{number}!\n".encode() for number in range(100)}
    assert expected == batch.objects(f"s3://out/{name}/")
    assert (100, 100) == tuple(batch.progress(name)[what] for what in ("ObjectsDone", "RecordsDone"))


def test_a_manifest_names_the_objects(batch: Batch) -> None:
    """And no other is read."""
    for key in ("a.txt", "b.txt", "c.txt"):
        batch.put(f"s3://in/listed/{key}", key)
    batch.put("s3://in/manifest.json", json.dumps([{"prefix": "s3://in/listed/"}, "c.txt", "a.txt"]))
    done = batch.run("s3://in/manifest.json", Source={"S3DataType": "ManifestFile"})
    assert {"a.txt.out": b"a.txt!\n", "c.txt.out": b"c.txt!\n"} == done.outputs


def test_compressed_objects_are_read_as_what_they_hold(batch: Batch) -> None:
    """CompressionType=Gzip."""
    batch.put("s3://in/packed/a.gz", gzip.compress(b"1\n2\n") + gzip.compress(b"3\n"))
    done = batch.run("s3://in/packed/", Input={"CompressionType": "Gzip"})
    assert ("Completed", {"a.gz.out": b"1!\n2!\n3!\n"}) == (done.status, done.outputs)


def test_rows_of_parquet_are_sent_as_lines(batch: Batch) -> None:
    """By the object's name, in the job's ContentType."""
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    import pyarrow.parquet as parquet

    batch.put("s3://in/columns/a.parquet", b"")
    parquet.write_table(arrow.table({"x": [1, 2], "y": ["a", "b"]}), batch.path("s3://in/columns/a.parquet"))
    done = batch.run("s3://in/columns/")
    assert ("Completed", {"a.parquet.out": b"1,a!\n2,b!\n"}) == (done.status, done.outputs)


def test_records_go_one_by_one_or_together(batch: Batch, tmp_path: Path) -> None:
    """SingleRecord: a call each; MultiRecord: as many as fit."""
    batch.put("s3://in/strategy/a.txt", "1\n2\n3\n")
    for strategy, sizes in (("SingleRecord", ["1", "1", "1"]), ("MultiRecord", ["3"])):
        notes = tmp_path / strategy
        done = batch.run("s3://in/strategy/", BatchStrategy=strategy, Environment={"NOTES": str(notes)})
        assert b"1!\n2!\n3!\n" == done.outputs["a.txt.out"]
        assert sizes == notes.read_text().split()


def test_an_object_that_is_not_split_is_one_request(batch: Batch, tmp_path: Path) -> None:
    """Also with no limit of size (MaxPayloadInMB=0)."""
    batch.put("s3://in/whole/a.txt", "1\n2\n")
    given = {"Input": {"SplitType": None}, "Output": {"AssembleWith": None}}
    for megabytes in (6, 0):
        done = batch.run("s3://in/whole/", MaxPayloadInMB=megabytes, **given)
        assert ("Completed", {"a.txt.out": b"1!\n2!\n"}) == (done.status, done.outputs)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_bad_record_fails_alone(batch: Batch) -> None:
    """A line of nothing in its place, its number and reason in the errors, and the job tells of it."""
    rows = [row(number) for number in range(100)]
    rows[41] = rows[41].replace("1,", "x,", 1)
    source = batch.put("s3://in/bad/a.csv", "\n".join(rows) + "\n")
    batch.put("s3://in/bad/b.csv", ROW)
    done = batch.run("s3://in/bad/", "sum")
    lines = done.outputs["a.csv.out"].decode().split("\n")
    assert ["" if number == 41 else f"{number + 29}.0" for number in range(100)] == lines[:-1]
    assert b"30.0\n" == done.outputs["b.csv.out"]
    (error,) = done.errors
    offset = len("\n".join(rows[:41])) + 1
    assert {"source": source, "line": 42, "offset": offset} == {name: error[name] for name in error if name != "reason"}
    assert "is not a number" in error["reason"]
    assert "Failed" == done.status
    assert done.reason.startswith(
        "1 of 101 records failed, in 1 of 2 objects; the first: s3://in/bad/a.csv, record 42:"
    )
    assert done.reason.endswith("-errors.jsonl")


def test_a_job_may_put_up_with_some_bad_records(batch: Batch) -> None:
    """Its environment says with how many; their errors are told all the same."""
    batch.put("s3://in/tolerant/a.txt", "1\nfail x\n2\nfail y\n3\n")
    done = batch.run("s3://in/tolerant/", Environment=TOLERANT)
    assert ("Completed", b"1!\n\n2!\n\n3!\n") == (done.status, done.outputs["a.txt.out"])
    assert [2, 4] == [error["line"] for error in done.errors]
    batch.put("s3://in/tolerant/b.txt", "fail z\n1\n")
    done = batch.run("s3://in/tolerant/", Environment=TOLERANT)
    assert ("Failed", 3) == (done.status, len(done.errors))


def test_a_record_that_ends_its_worker_is_bad_and_its_neighbours_are_not(batch: Batch) -> None:
    """The worker is started again for them."""
    batch.put("s3://in/deadly/a.txt", "1\n2\ndie\n3\n")
    done = batch.run("s3://in/deadly/")
    assert b"1!\n2!\n\n3!\n" == done.outputs["a.txt.out"]
    assert [3] == [error["line"] for error in done.errors]


def test_a_record_over_the_limit_is_bad(batch: Batch) -> None:
    """It is not sent; the others are."""
    batch.put("s3://in/long/a.txt", "1\n" + "x" * (2 << 20) + "\n2\n")
    done = batch.run("s3://in/long/", MaxPayloadInMB=1)
    assert b"1!\n\n2!\n" == done.outputs["a.txt.out"]
    assert [(2, 2)] == [(error["line"], error["offset"]) for error in done.errors]


def test_an_object_of_nonsense_is_given_up(batch: Batch) -> None:
    """Without a call for each of its records; it has no output."""
    batch.put("s3://in/nonsense/a.csv", "x\n" * 20_000)
    batch.put("s3://in/nonsense/b.csv", ROW)
    done = batch.run("s3://in/nonsense/", "sum")
    assert {"b.csv.out": b"30.0\n"} == done.outputs
    assert "Failed" == done.status
    assert "1 of 2 objects failed and got no output; the first: s3://in/nonsense/a.csv: 1,001 of the" in done.reason


def test_an_object_without_a_good_record_has_no_output(batch: Batch) -> None:
    """As AWS does it when a request fails."""
    batch.put("s3://in/refused/a.txt", "fail it\n")
    done = batch.run("s3://in/refused/")
    assert ("Failed", {}) == (done.status, done.outputs)
    assert [1, None] == [error["line"] for error in done.errors]
    assert "this model does not like it" in done.reason


def test_an_object_that_is_not_what_the_job_says_has_no_output(batch: Batch) -> None:
    """The others have theirs, and the job names it."""
    batch.put("s3://in/liar/a.gz", b"1\n2\n")
    batch.put("s3://in/liar/b.gz", gzip.compress(b"1\n"))
    done = batch.run("s3://in/liar/", Input={"CompressionType": "Gzip"})
    assert ("Failed", {"b.gz.out": b"1!\n"}) == (done.status, done.outputs)
    assert "the first: s3://in/liar/a.gz: The object is not gzip" in done.reason


def test_a_failure_is_tried_again_as_the_job_says(batch: Batch, tmp_path: Path) -> None:
    """InvocationsMaxRetries; 0 is none."""
    for retries, status in ((0, "Failed"), (1, "Completed")):
        batch.put(f"s3://in/retry{retries}/a.txt", f"once {tmp_path}/{retries}\n")
        done = batch.run(f"s3://in/retry{retries}/", ModelClientConfig={"InvocationsMaxRetries": retries})
        assert status == done.status


def test_a_media_type_that_the_model_cannot_write_is_told_once_per_object(batch: Batch) -> None:
    """No record is better than another: they are not looked at one by one."""
    batch.put("s3://in/media/a.csv", f"{ROW}\n" * 10)
    done = batch.run("s3://in/media/", "sum", Output={"Accept": "image/png"})
    assert ("Failed", {}, 1) == (done.status, done.outputs, len(done.errors))


def test_a_job_without_input_fails(batch: Batch) -> None:
    """In a sentence that says where nothing is."""
    done = batch.run("s3://in/nothing-here/")
    assert "Failed" == done.status
    assert "s3://in/nothing-here/" in done.reason


# --- beside the outputs -----------------------------------------------------------------------------------------------


def test_what_was_read_and_written_is_captured(batch: Batch) -> None:
    """Two manifests, below the hour of the job's start; every record of the output has an id and that time."""
    for key in ("a.csv", "deep/b.csv"):
        batch.put(f"s3://in/captured/{key}", f"{ROW}\n{ROW}\n")
    capture = {"DestinationS3Uri": "s3://captured/here", "GenerateInferenceId": True}
    name = batch.begin("s3://in/captured/", "sum", DataCaptureConfig=capture)
    assert "Completed" == batch.ended(name)["TransformJobStatus"]
    found = batch.objects("s3://captured/here/")
    assert ["input", "output"] == [key.partition("/")[0] for key in found]
    read, written = (json.loads(content) for content in found.values())
    assert [{"prefix": "s3://in/captured/"}, "a.csv", "deep/b.csv"] == read
    assert [{"prefix": f"s3://out/{name}/"}, "a.csv.out", "deep/b.csv.out"] == written
    rows = [line.split(",") for one in batch.objects(f"s3://out/{name}/").values() for line in one.decode().split()]
    assert (4, {"30.0"}) == (len({identity for _, identity, _ in rows}), {answer for answer, _, _ in rows})
    started = batch.describe(name)["TransformStartTime"].strftime("%Y-%m-%dT%H")
    assert {started} == {moment[:13] for _, _, moment in rows}


def test_a_stopped_job_leaves_no_output(batch: Batch, tmp_path: Path) -> None:
    """Neither of what was through nor of what was not, nor anything in the spool."""
    batch.put("s3://in/stopped/a.txt", "1\n")
    batch.put("s3://in/stopped/b.txt", f"wait {tmp_path}/never\n")
    name = batch.begin("s3://in/stopped/", Resources=TWO)
    batch.server.eventually(lambda: batch.path(f"s3://out/{name}/a.txt.out").exists())
    batch.sagemaker.stop_transform_job(TransformJobName=name)
    assert "Stopped" == batch.ended(name)["TransformJobStatus"]
    assert {} == batch.objects(f"s3://out/{name}/")
    batch.server.eventually(lambda: not (batch.server.data_dir / "spool" / "transform" / name).exists())


def test_a_job_stopped_while_it_publishes_leaves_no_output(batch: Batch) -> None:
    """Neither of the objects that were being published at that moment."""
    for number in range(500):
        batch.put(f"s3://in/flood/{number:03}.txt", f"{number}\n")
    name = batch.begin("s3://in/flood/")
    batch.server.eventually(lambda: bool(batch.objects(f"s3://out/{name}/")))
    batch.sagemaker.stop_transform_job(TransformJobName=name)
    assert ("Stopped", {}) == (batch.ended(name)["TransformJobStatus"], batch.objects(f"s3://out/{name}/"))


def test_records_are_counted_while_a_job_runs(batch: Batch, tmp_path: Path) -> None:
    """And its series are gone when it has ended; that it ended stays counted."""
    batch.put("s3://in/counted/a.txt", "1\n2\n")
    batch.put("s3://in/counted/b.txt", f"wait {tmp_path}/go\n")
    before = batch.server.metric("sagemaker_transform_jobs_total", status="Completed")
    name = batch.begin("s3://in/counted/", Resources=TWO)
    labels = {"endpoint": f"transform-job/{name}", "result": "done"}
    batch.server.eventually(lambda: 2 == batch.server.metric("sagemaker_transform_records_total", **labels))
    batch.server.eventually(lambda: 2 == batch.progress(name).get("RecordsDone"))
    (tmp_path / "go").touch()
    assert "Completed" == batch.ended(name)["TransformJobStatus"]
    assert before + 1 == batch.server.metric("sagemaker_transform_jobs_total", status="Completed")
    batch.server.eventually(lambda: 0 == batch.server.metric("sagemaker_transform_records_total"))


def test_a_job_whose_model_cannot_be_loaded_leaves_nothing(batch: Batch) -> None:
    """Control ends it; its rows and parts go with it."""
    batch.put("s3://models/damaged.onnx", "no model")
    cloud.make_model(batch.sagemaker, "damaged", cloud.container("s3://models/damaged.onnx"))
    batch.put("s3://in/damaged/a.csv", ROW)
    done = batch.run("s3://in/damaged/", "damaged")
    assert ("Failed", {}) == (done.status, done.outputs)
    batch.server.eventually(lambda: [] == list((batch.server.data_dir / "spool" / "transform").iterdir()))
