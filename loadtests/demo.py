"""``python -m loadtests.demo NAME``: what the server is for, shown on real data from beginning to end."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from loadtests.processes import exit_on_sigterm

#: Name -> who shows it (``module:function``, which returns the exit status), and what.
DEMOS = {
    "ab": (
        "loadtests.demo_ab:main",
        "two variants, one truly better: traffic, labels, the verdict; and two equal ones",
    ),
    "scaling": (
        "loadtests.demo_scaling:main",
        "a ramp of Locust: workers that follow the load, a burst, to zero and back, and a chart of it",
    ),
    "rollout": (
        "loadtests.demo_rollout:main",
        "a canary with a bad model is rolled back by its alarm, a good one goes through",
    ),
    "drift": (
        "loadtests.demo_drift:main",
        "captured calls as in training pass, later ones have their changed columns named",
    ),
    "gallery": (
        "loadtests.demo_gallery:main",
        "all built-in algorithms behind one endpoint, with memory for half of them, under load",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Show one; what follows its name is for it."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.demo", description=__doc__)
    for_each = parser.add_subparsers(dest="name", required=True)
    for name, (_, what) in DEMOS.items():
        for_each.add_parser(name, help=what, add_help=False)
    chosen, rest = parser.parse_known_args(arguments)
    module, _, function = DEMOS[chosen.name][0].partition(":")
    return int(getattr(importlib.import_module(module), function)(rest))


if __name__ == "__main__":
    exit_on_sigterm()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
