"""Asynchronous inference (SageMaker's InvokeEndpointAsync; ``behaviour/03``): its two parts, for the jobs process.

``AsyncDoor`` answers fronts: submit, status, page, cancel, read. ``AsyncConsumers`` takes the jobs from the queue, has
them answered through the hallway, and brings each to exactly one end. What a job is and can come to: ``async_calls``;
one job's way: ``async_runs``; ends without a run: ``async_ends``; notifications: ``notices``; bytes: ``async_files``.
"""

from serving.jobs.async_consumers import AsyncConsumers
from serving.jobs.async_door import AsyncDoor

__all__ = ["AsyncConsumers", "AsyncDoor"]
