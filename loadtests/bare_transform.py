"""A batch transform without a server: one loop of one process that reads a CSV file, predicts, and writes each row with
its prediction. ``python -m loadtests.bare_transform numpy|pyarrow MODEL INPUT OUTPUT`` prints the seconds of the loop,
imports and loading the model left out, in either of the ways that people write it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

#: Rows at a time: a sweet spot of both ways, and bounded memory as ours has it.
_ROWS, _BLOCK = 50_000, 4 << 20


def with_numpy(predict: Callable[[Any], Any], source: Path, target: Path) -> None:
    """``numpy.loadtxt``, which is there wherever XGBoost is; the rows are written as they were read."""
    import numpy as np

    with source.open() as lines, target.open("w") as out:
        while rows := list(islice(lines, _ROWS)):
            scores = predict(np.loadtxt(rows, delimiter=",", dtype=np.float32, ndmin=2)).tolist()
            out.writelines(f"{row.rstrip()},{score}\n" for row, score in zip(rows, scores, strict=True))


def with_pyarrow(predict: Callable[[Any], Any], source: Path, target: Path) -> None:
    """Arrow's CSV reader and writer, which use all cores; the numbers are written anew."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv

    options = csv.ReadOptions(autogenerate_column_names=True, block_size=_BLOCK)
    writer = None
    for batch in csv.open_csv(source, read_options=options):
        scores = predict(np.column_stack([column.to_numpy() for column in batch.columns]).astype(np.float32))
        joined = pa.RecordBatch.from_arrays([*batch.columns, pa.array(scores)], [*batch.schema.names, "score"])
        if writer is None:
            write = csv.WriteOptions(include_header=False)
            writer = csv.CSVWriter(str(target), joined.schema, write_options=write)
        writer.write(joined)
    if writer is not None:
        writer.close()


LOOPS: dict[str, Callable[[Callable[[Any], Any], Path, Path], None]] = {"numpy": with_numpy, "pyarrow": with_pyarrow}


def main() -> None:
    """Run one loop; its seconds on stdout."""
    import numpy as np
    import xgboost

    how, model, source, target = sys.argv[1], *map(Path, sys.argv[2:5])
    booster = xgboost.Booster(model_file=str(model))
    booster.inplace_predict(np.zeros((1, booster.num_features()), np.float32))
    if how == "pyarrow":
        import pyarrow.csv  # noqa: F401  its import is not the loop's
    began = time.perf_counter()
    LOOPS[how](booster.inplace_predict, source, target)
    print(f"{time.perf_counter() - began:.3f}")


if __name__ == "__main__":
    main()
