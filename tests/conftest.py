"""What holds for every test: other processes share the machine, and one of them runs tests too.

Each of the two collects for itself and must find the same tests, so names and parameters of tests come from no set, no
clock and no dice.
"""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

#: An example may take its time, and inventing one too: how long either takes says who else is at work.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

#: What a shell starts in the background ignores Ctrl-C, and so would all that tests start to be interrupted.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
