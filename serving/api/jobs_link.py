"""A front's line to the jobs process: questions about asynchronous calls over ``jobs.sock``.

Every question may be asked twice: a submission carries the id of its job, and putting that into the queue again
changes nothing.
"""

from __future__ import annotations

from serving.api.desk_link import DeskLink


class JobsLink(DeskLink):
    """The line of one front."""

    busy = "Too many asynchronous calls are being taken in; please try again."
    silent = "The queue of asynchronous calls does not answer."
    unreachable = "The queue of asynchronous calls cannot be reached."
    broken = unreachable
