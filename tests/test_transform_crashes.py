"""A transform job goes on from its last finished block, whatever ended whichever process, and nobody can tell."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.batch import Batch
from tests.processes import kill_all, processes
from tests.server import Server, serve

LINE = "x" * 1000
#: The model is asked for one line at a time, in their order.
ONE_BY_ONE = {"BatchStrategy": "SingleRecord", "MaxConcurrentTransforms": 1}


def checkpoint(server: Server) -> int:
    """Bytes of its output that the one object of the one job has safe, as the queue's file says."""
    try:
        with closing(sqlite3.connect(f"file:{server.data_dir}/queue.db?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT progress FROM work WHERE lane LIKE 'transform/%'").fetchall()
    except sqlite3.OperationalError:  # there is no queue yet
        return 0
    found = re.search(r'"part":(\d+)', rows[0][0] or "") if rows else None
    return int(found[1]) if found else 0


def test_a_job_goes_on_where_it_was(tmp_path: Path) -> None:
    """One job, held up three times by its model: then its jobs process is killed, its server told to stop, everything
    killed. The output is what it would have been, no request is made again that a checkpoint covers, and nothing is
    visible before the end."""
    notes = tmp_path / "notes"
    lines = [f"{number} {LINE}" for number in range(12)]
    for at in (4, 7, 10):
        lines[at] = f"wait {tmp_path}/{at}"
    expected = "".join(f"{line}!\n" for line in lines)
    with serve(tmp_path, "--allow-code") as server:
        batch = Batch(server).make_models()
        batch.put("s3://in/a.txt", "\n".join(lines))
        name = batch.begin("s3://in/", **ONE_BY_ONE, Environment={"NOTES": str(notes)})
        output = batch.path(f"s3://out/{name}/a.txt.out")
        server.eventually(lambda: checkpoint(server) > 4 * len(LINE))
        for pid in processes(server, "serving.jobs_process"):
            os.kill(pid, signal.SIGKILL)
        (tmp_path / "4").touch()
        server.eventually(lambda: (server.data_dir / f"spool/transform/{name}/0.out").stat().st_size > 6 * len(LINE))
        assert not output.exists()
        assert 0 == server.stop()
    with serve(tmp_path, "--allow-code") as server:
        assert 6 * len(LINE) < checkpoint(server)
        (tmp_path / "7").touch()
        server.eventually(lambda: checkpoint(server) > 8 * len(LINE))
        assert not output.exists()
        kill_all(server)
    with serve(tmp_path, "--allow-code") as server:
        (tmp_path / "10").touch()
        assert "Completed" == Batch(server).ended(name)["TransformJobStatus"]
        assert expected == output.read_text()
        server.eventually(lambda: [] == list((server.data_dir / "spool" / "transform").iterdir()))
    assert 12 + 3 == len(notes.read_text().split()), "only the three that were held up have been asked twice"


def attempts(server: Server) -> int:
    """How often the second object of the one job has been begun, as the queue's file says."""
    with closing(sqlite3.connect(f"file:{server.data_dir}/queue.db?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT max(attempt) FROM work WHERE name LIKE '%/1'").fetchone()[0])


def test_an_object_that_ends_whoever_reads_it_is_given_up(tmp_path: Path) -> None:
    """The process ends whenever it has begun one of two objects: the third time on, that one is tried by itself, and
    after three such trials it fails. The other's output stands, and the job ends."""
    with serve(tmp_path, "--allow-code") as server:
        batch = Batch(server).make_models()
        batch.put("s3://in/good.txt", "good")
        batch.put("s3://in/worse.txt", f"wait {tmp_path}/never")
        # A worker each: whichever object is read first, the good one is not held up by the other.
        name = batch.begin("s3://in/", **ONE_BY_ONE, Resources={"InstanceCount": 2})
        server.eventually(lambda: {"good.txt.out": b"good!\n"} == batch.objects(f"s3://out/{name}/"))
        seen = 0
        while "InProgress" == (job := batch.describe(name))["TransformJobStatus"]:
            if seen < attempts(server):
                seen = attempts(server)
                for pid in processes(server, "serving.jobs_process"):
                    os.kill(pid, signal.SIGKILL)
        assert seen >= 6
        assert "Failed" == job["TransformJobStatus"]
        assert "The server ended 3 times while it read this object." in job["FailureReason"]
        assert {"good.txt.out", f"{name}-errors.jsonl"} == set(batch.objects(f"s3://out/{name}/"))
