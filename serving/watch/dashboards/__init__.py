"""The server's metrics for Grafana and Prometheus: a dashboard (``panels.py``, ``grafana.py``) and alert rules.

A test holds every metric and label that they name against ``watch/metrics.py``. ``serving dashboards`` writes both.
"""

from __future__ import annotations

import json
from pathlib import Path

from serving.watch.dashboards.grafana import dashboard
from serving.watch.dashboards.panels import ROWS

DASHBOARD, ALERTS = "serving-dashboard.json", "serving-alerts.yaml"


def files() -> dict[str, str]:
    """The text of each file by its name."""
    rules = Path(__file__).with_name(ALERTS).read_text(encoding="utf-8")
    return {DASHBOARD: json.dumps(dashboard(ROWS), indent=2) + "\n", ALERTS: rules}
