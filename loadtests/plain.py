"""What people write today: a Starlette app around ``Booster.inplace_predict``, one uvicorn worker, default settings.

Its access log is off and its parser is not the slow ``np.loadtxt``: the rival gets the benefit of the doubt.
"""

from __future__ import annotations

import argparse


def main() -> None:
    """``python -m loadtests.plain --model FILE --port N``."""
    import numpy as np
    import uvicorn
    import xgboost
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", required=True, help="an XGBoost model file")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    booster = xgboost.Booster(model_file=arguments.model)

    async def invocations(request: Request) -> PlainTextResponse:
        text = (await request.body()).decode()
        rows = np.array([line.split(",") for line in text.splitlines()], dtype=np.float32)
        scores = booster.inplace_predict(rows)
        return PlainTextResponse("\n".join(map(str, scores)), media_type="text/csv")

    app = Starlette(routes=[Route("/invocations", invocations, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, access_log=False)


if __name__ == "__main__":
    main()
