"""A drift check of captured calls in a process of its own, and the least that anyone could do with the same files.

``python -m loadtests.drift_check ours|plain DATA BASELINE`` prints a JSON object: seconds from the first file to the
last figure (imports left out), the process's peak of resident memory in MB, rows, and the features that drifted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

ENDPOINT, DESTINATION = "drifting", "s3://captures"


def ours(data: Path, baseline: Path) -> tuple[float, int, list[str]]:
    """The check that a monitoring schedule runs."""
    from serving.monitor import data_quality
    from serving.monitor.captures import read
    from serving.monitor.constraints import read as read_baseline
    from serving.monitor.values import Complaints, Window
    from serving.objects import LocalObjects

    began = time.perf_counter()
    objects, complaints = LocalObjects(data / "s3", data / "spool"), Complaints()
    known = read_baseline((baseline / "constraints.json").read_bytes(), (baseline / "statistics.json").read_bytes())
    records = read(objects, None, DESTINATION, ENDPOINT, Window(0.0, 4e9), complaints)
    result = data_quality.of_records(records, known, complaints)
    violated = [one["feature_name"] for one in result.violations["violations"]]
    if result.complaints:
        raise RuntimeError(f"records were left out: {result.complaints}")
    return time.perf_counter() - began, result.item_count, violated


def plain(data: Path, baseline: Path) -> tuple[float, int, list[str]]:
    """Arrow's JSON and CSV readers on all cores, whole files at a time, and numpy's moments: no types, no missing
    values, no bad lines, no distribution, nothing compared."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv
    from pyarrow import json as arrow_json

    began, rows, sums = time.perf_counter(), 0, []
    for path in sorted((data / "s3").rglob("*.jsonl")):
        table = arrow_json.read_json(path).flatten().flatten()
        bodies = table["captureData.endpointInput.data"].to_pylist()
        text = pa.py_buffer("\n".join(bodies).encode())
        parsed = csv.read_csv(text, csv.ReadOptions(autogenerate_column_names=True))
        rows += parsed.num_rows
        for column in parsed.columns:
            values = column.to_numpy()
            sums.append((values.mean(), values.std(), values.min(), values.max(), np.isnan(values).sum()))
    return time.perf_counter() - began, rows, []


def _peak_mb() -> float:
    """The most memory that was resident, of this program alone: what its parent had before is in ``ru_maxrss``."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def main() -> None:
    """Run one."""
    how, data, baseline = sys.argv[1], *map(Path, sys.argv[2:4])
    seconds, rows, violated = {"ours": ours, "plain": plain}[how](data, baseline)
    told: dict[str, Any] = {"seconds": seconds, "peak_mb": _peak_mb(), "rows": rows, "violated": violated}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
