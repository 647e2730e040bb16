"""How a transform job calls its model: requests at once, their size, one record in each or many. Pure.

The job's own members come first, then what the model's container answers, then the default (``behaviour/04``,
Negotiation). Our containers answer with their environment, which a model or a job may set:
``SAGEMAKER_MAX_CONCURRENT_TRANSFORMS``, ``SAGEMAKER_MAX_PAYLOAD_IN_MB`` and ``SAGEMAKER_BATCH_STRATEGY``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from serving.errors import ValidationError

CONCURRENT, PAYLOAD, STRATEGY = (
    "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS",
    "SAGEMAKER_MAX_PAYLOAD_IN_MB",
    "SAGEMAKER_BATCH_STRATEGY",
)
#: MaxPayloadInMB, and it times MaxConcurrentTransforms (SageMaker API, CreateTransformJob).
MOST_MEGABYTES = 100
USUAL_MEGABYTES = 6
#: Requests that an instance is given at once: enough for one to be read while others run and wait.
USUAL_CONCURRENT = 4
_STRATEGIES = {
    "MULTI_RECORD": "MultiRecord",
    "MULTIRECORD": "MultiRecord",
    "SINGLE_RECORD": "SingleRecord",
    "SINGLERECORD": "SingleRecord",
}


class Parameters(NamedTuple):
    """``concurrent``: requests at once for each instance; ``megabytes``: the largest request, 0 = of any size;
    ``strategy``: ``MultiRecord`` or ``SingleRecord``."""

    concurrent: int
    megabytes: int
    strategy: str

    def members(self) -> dict[str, Any]:
        """As members of CreateTransformJob."""
        return {
            "MaxConcurrentTransforms": self.concurrent,
            "MaxPayloadInMB": self.megabytes,
            "BatchStrategy": self.strategy,
        }


def execution_parameters(instances: int, megabytes: int = USUAL_MEGABYTES) -> dict[str, Any]:
    """What a container of so many workers answers at ``/execution-parameters``, within SageMaker's limits."""
    room = max(1, MOST_MEGABYTES // megabytes)
    return {
        "MaxConcurrentTransforms": min(USUAL_CONCURRENT * max(1, instances), room),
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": megabytes,
    }


def parameters(job: Mapping[str, Any], environment: Mapping[str, str]) -> Parameters:
    """What a job goes by. ``job``: CreateTransformJob; ``environment``: its container's. Raises ``ValidationError``
    for what does not go together, or is no number where one belongs."""
    megabytes = job["MaxPayloadInMB"] if "MaxPayloadInMB" in job else _answered(environment, PAYLOAD, USUAL_MEGABYTES)
    if megabytes > MOST_MEGABYTES:
        raise ValidationError(f"MaxPayloadInMB is {megabytes}; it must be at most {MOST_MEGABYTES}.")
    room = MOST_MEGABYTES // max(1, megabytes)
    asked = job.get("MaxConcurrentTransforms", 0)
    if asked > room:
        raise ValidationError(
            f"MaxConcurrentTransforms ({asked}) times MaxPayloadInMB ({megabytes}) must be at most {MOST_MEGABYTES}."
        )
    usual = min(_answered(environment, CONCURRENT, 0) or USUAL_CONCURRENT, room)
    return Parameters(asked or usual, megabytes, _strategy(job, environment))


def job_environment(job: Mapping[str, Any]) -> dict[str, str]:
    """What a job sets in every container of its model: its Environment, that it is a batch, and the parameters it
    names (``behaviour/04``)."""
    named = {PAYLOAD: "MaxPayloadInMB", STRATEGY: "BatchStrategy", CONCURRENT: "MaxConcurrentTransforms"}
    given = {variable: str(job[member]) for variable, member in named.items() if member in job}
    if not job.get("MaxConcurrentTransforms"):  # 0 = ask the container, which had better not be told what to say
        given.pop(CONCURRENT, None)
    if STRATEGY in given:
        given[STRATEGY] = "SINGLE_RECORD" if given[STRATEGY] == "SingleRecord" else "MULTI_RECORD"
    return {**job.get("Environment", {}), "SAGEMAKER_BATCH": "true", **given}


def _answered(environment: Mapping[str, str], variable: str, usual: int) -> int:
    text = environment.get(variable, "")
    if not text:
        return usual
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValidationError(f"{variable} must be a whole number; the model's environment says {text[:64]!r}.")
    return int(text)


def _strategy(job: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    text = job.get("BatchStrategy") or environment.get(STRATEGY, "") or "MULTI_RECORD"
    strategy = _STRATEGIES.get(text.upper())
    if strategy is None:
        raise ValidationError(
            f"{STRATEGY} must be MULTI_RECORD or SINGLE_RECORD; the model's environment says {text[:64]!r}."
        )
    return strategy
