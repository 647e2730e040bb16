"""Captured calls as a table: Parquet, one row for each record. Needs pyarrow (the extra ``parquet``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from serving.errors import ConfigError, ValidationError
from serving.monitor.captures import parse
from serving.monitor.values import Record, Side

#: Rows, and bytes of their lines, that are written together.
_ROWS, _BYTES = 10_000, 64 * 2**20

#: Column -> what it is of a record.
COLUMNS = (
    "event_id", "inference_id", "inference_time", "variant", "target_model", "custom_attributes", "traceparent",
    "input_content_type", "input_encoding", "input", "output_content_type", "output_encoding", "output",
    "total_microseconds", "predict_microseconds",
)  # fmt: skip


def row(record: Record) -> dict[str, Any]:
    """A record's values by column; what it does not say, or not as the server writes it, is None. Bodies are as the
    record has them: text, or Base64 where the encoding column says so."""
    metadata, timing = record.metadata, record.metadata.get("timing")
    timing = timing if isinstance(timing, dict) else {}
    return {
        "event_id": record.event_id,
        "inference_id": record.inference_id or None,
        "inference_time": int(record.time),
        "variant": record.variant,
        "target_model": _text(metadata.get("targetModel")),
        "custom_attributes": _texts(metadata.get("customAttributes")),
        "traceparent": _text(metadata.get("traceparent")),
        **_side("input", record.input),
        **_side("output", record.output),
        "total_microseconds": _whole(timing.get("total")),
        "predict_microseconds": _whole(timing.get("predict")),
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> list[str] | None:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


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
    written = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _batches(lines):
            writer.write_table(arrow.Table.from_pylist(batch, schema))
            written += len(batch)
    return written


def _batches(lines: Iterable[bytes]) -> Iterator[list[dict[str, Any]]]:
    """The rows of lines that are records, so many together that memory holds them whatever their bodies are."""
    batch: list[dict[str, Any]] = []
    size = 0
    for line in lines:
        with suppress(ValidationError):
            record = parse(line)
            batch.append(row(record._replace(variant=_text(orjson.loads(line).get("variant")) or "")))
            size += len(line)
        if len(batch) >= _ROWS or size >= _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
