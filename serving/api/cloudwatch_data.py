"""GetMetricData: several metrics, and expressions over them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from serving.api.cloudwatch_checks import read_queries
from serving.api.cloudwatch_metrics import PAGES, Series, check_span, meters_of, series
from serving.api.control_call import ControlCall, Outcome
from serving.errors import InvalidParameterValue
from serving.fleet import tokens
from serving.scaling import maths
from serving.scaling.values import Query

#: CloudWatch's own limits: datapoints on a page, queries of one call.
_MOST_DATAPOINTS, _MOST_QUERIES = 100_800, 500
#: Periods that one call may look at: none are remembered beyond three hours, and others wait while it looks.
_MOST_PERIODS = 100_000


def get_data(call: ControlCall) -> Outcome:
    """GetMetricData: several metrics and expressions over them, in pages of so many datapoints."""
    params = call.params
    if len(params["MetricDataQueries"]) > _MOST_QUERIES:
        raise InvalidParameterValue(f"A call has {_MOST_QUERIES} queries at most.")
    check_span(params)
    most = params.get("MaxDatapoints", _MOST_DATAPOINTS)
    if not 0 < most <= _MOST_DATAPOINTS:
        raise InvalidParameterValue(f"The parameter MaxDatapoints must be between 1 and {_MOST_DATAPOINTS}.")
    purpose = [params["StartTime"], params["EndTime"], params.get("ScanBy")]
    after = tokens.unseal(PAGES, purpose, params.get("NextToken", ""))
    results = _results(call, read_queries(params["MetricDataQueries"]))
    page, following = _page(results, int(after[0]) if after else 0, most)
    token = {"NextToken": tokens.seal(PAGES, purpose, [following])} if following else {}
    return Outcome({"MetricDataResults": page, "Messages": [], **token})


def _results(call: ControlCall, queries: tuple[Query, ...]) -> list[tuple[Query, str, Series]]:
    """Every result asked for: its query, its label, its datapoints."""
    params, meters = call.params, meters_of(call)
    given = {one["Id"]: one for one in params["MetricDataQueries"]}
    periods = [one["MetricStat"]["Period"] for one in given.values() if "MetricStat" in one]
    start, end = params["StartTime"], params["EndTime"]
    if not periods:
        raise InvalidParameterValue("At least one of the queries must be a metric.")
    if sum(math.ceil((end - start) / period) for period in periods) > _MOST_PERIODS:
        raise InvalidParameterValue(f"A call looks at {_MOST_PERIODS} periods at most, of all its metrics together.")

    def fetch(query: Query) -> Series:
        assert query.stat is not None
        return series(meters, query.stat, given[query.id]["MetricStat"]["Period"], start, end)

    shortest = min(periods)
    first, last = math.floor(start / shortest), math.ceil(min(end, call.now) / shortest)
    found = maths.all_of(queries, fetch, [at * shortest for at in range(first, last)])
    newest_first = params.get("ScanBy", "TimestampDescending") == "TimestampDescending"
    results: list[tuple[Query, str, Series]] = []
    for query in queries:
        if query.returned:
            ordered = list(reversed(found[query.id])) if newest_first else list(found[query.id])
            results.append((query, given[query.id].get("Label") or _label(query), ordered))
    return results


def _label(query: Query) -> str:
    return query.stat.metric.name if query.stat else query.id


def _page(
    results: Iterable[tuple[Query, str, Series]], skipped: int, most: int
) -> tuple[list[dict[str, Any]], int | None]:
    """Datapoints ``skipped`` to ``skipped + most`` of all results in a row, and where the next page begins."""
    page: list[dict[str, Any]] = []
    at = 0
    for query, label, points in results:
        first, last = max(skipped - at, 0), min(skipped + most - at, len(points))
        shown = points[first:last] if first < last else ()
        if shown or not points:
            result = {
                "Id": query.id,
                "Label": label,
                "StatusCode": "Complete" if last == len(points) else "PartialData",
            }
            page.append(result | {"Timestamps": [one for one, _ in shown], "Values": [value for _, value in shown]})
        at += len(points)
    return page, skipped + most if skipped + most < at else None
