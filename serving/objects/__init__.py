"""Objects by URL, ``s3://bucket/key``: read, written and listed, streamed and never whole in memory.

The local bucket folder (``DATA_DIR/s3/bucket/key``) and real S3-compatible stores keep one contract. An object appears
whole or not at all: it is written elsewhere (``spool``), put on the disk, and only then given its name.
"""

from __future__ import annotations

from serving.config import Settings
from serving.objects.base import ObjectInfo, ObjectStore, sweep
from serving.objects.local import LocalObjects
from serving.objects.s3 import S3Objects
from serving.storage import s3_client

__all__ = ["LocalObjects", "ObjectInfo", "ObjectStore", "S3Objects", "open_objects"]


def open_objects(settings: Settings) -> ObjectStore:
    """The store these settings ask for; what a killed process left unfinished in its spool is removed. Raises
    ``ConfigError`` when S3 is wanted and boto3 is not installed."""
    spool = settings.data_dir / "spool"
    sweep(spool)
    if settings.s3 != "local":
        return S3Objects(s3_client(settings), spool)
    local = LocalObjects(settings.data_dir / "s3", spool)
    sweep(local.carrier)
    return local
