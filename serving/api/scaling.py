"""How an endpoint scales, at this moment: ``GET /endpoints/{name}/scaling``, beyond SageMaker. The control process
knows (``fleet/scaling_view.py``)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from serving.api.front import Front
from serving.api.requests import json_answer
from serving.api.verdicts import endpoint_row


async def scaling(front: Front, request: Request) -> Response:
    """GET /endpoints/{name}/scaling: for each scalable target its limits and capacity, what each policy measures, the
    state of its alarms, what was decided and why not more."""
    row = endpoint_row(front, request.path_params["name"])
    return json_answer(await front.ask("scaling", {"endpoint": row["name"]}))
