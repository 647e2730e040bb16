"""Captured calls as a table: Parquet, one row for each record. Needs pyarrow (the extra ``parquet``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from serving.errors import ConfigError, ValidationError
from serving.monitor.captures import parse
from serving.monitor.values import Record, Side

#: Rows, and bytes of bodies, that are written together.
_ROWS = 10_000

#: Column -> what it is of a record.
COLUMNS = (
    "event_id", "inference_id", "inference_time", "variant", "target_model", "custom_attributes", "traceparent",
    "input_content_type", "input_encoding", "input", "output_content_type", "output_encoding", "output",
    "total_microseconds", "predict_microseconds",
)  # fmt: skip


def row(record: Record) -> dict[str, Any]:
    """A record's values by column; what it does not say is None. Bodies are as the record has them: text, or Base64
    where the encoding column says so."""
    metadata, timing = record.metadata, record.metadata.get("timing") or {}
    return {
        "event_id": record.event_id,
        "inference_id": record.inference_id or None,
        "inference_time": int(record.time),
        "variant": record.variant,
        "target_model": metadata.get("targetModel"),
        "custom_attributes": metadata.get("customAttributes"),
        "traceparent": metadata.get("traceparent"),
        **_side("input", record.input),
        **_side("output", record.output),
        "total_microseconds": timing.get("total"),
        "predict_microseconds": timing.get("predict"),
    }


def _side(name: str, side: Side | None) -> dict[str, str | None]:
    content_type, encoding, data = side if side is not None else (None, None, None)
    return {f"{name}_content_type": content_type, f"{name}_encoding": encoding, name: data}


def to_parquet(lines: Iterable[bytes], path: Path) -> int:
    """Write records, as lines with their ``variant``, to a new file; returns how many. Raises ``ConfigError`` when it
    cannot be written or pyarrow is not there."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise ConfigError("Parquet needs pyarrow: pip install 'serving[parquet]'.") from None
    kinds = {
        "inference_time": arrow.timestamp("s", tz="UTC"),
        "custom_attributes": arrow.list_(arrow.string()),
        "total_microseconds": arrow.int64(),
        "predict_microseconds": arrow.int64(),
    }
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in COLUMNS])
    written, rows = 0, _rows(lines)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(rows, _ROWS)):
            writer.write_table(arrow.Table.from_pylist(batch, schema))
            written += len(batch)
    return written


def _rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield row(parse(line, orjson.loads(line).get("variant", "")))
        except ValidationError:
            continue
