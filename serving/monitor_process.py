"""A monitor process: one task over what was written down, then the end.

``python -m serving.monitor_process``, started by control (``monitors.py``). One line of JSON comes on standard input::

    {"task": "drift", "args": {…}, "settings": {…}, "run_dir": PATH}

and one line leaves on standard output: ``{"value": …}``, or ``{"error": NAME, "message": TEXT}``. Standard input stays
open for as long as somebody wants the answer: its end, like the end of control itself, ends this process at once. It
works at the lowest priority and is the first that a machine without memory ends.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from serving.errors import InternalFailure, ServiceUnavailable, ServingError
from serving.link import settings_of
from serving.monitor.tasks import Attributed, Means, find
from serving.objects import open_objects
from serving.watch.logs import configure as configure_logs

#: prctl(2): the signal a process gets when the thread that started it ends.
_PR_SET_PDEATHSIG = 1
_NICE = 10

log = logging.getLogger("serving.monitor")


def main() -> None:
    """Do the one task. Whatever becomes of it, the last line of standard output says so."""
    _die_with_control()
    _be_humble()
    answers = _own_output()
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        os._exit(1)  # control has gone before it said what it wants
    threading.Thread(target=_end_when_unwanted, daemon=True).start()
    plan = json.loads(line)
    configure_logs(plan["settings"]["log_format"], plan["settings"]["log_level"])
    _write(answers, json.dumps(answer(plan)).encode() + b"\n")
    sys.stderr.flush()
    os._exit(0)  # threads of the libraries have nothing left to do


def answer(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What is answered to a plan. Raises nothing."""
    try:
        return {"value": find(plan["task"])(plan["args"], means(plan))}
    except ServingError as error:
        return _refusal(error)
    except ImportError as error:
        log.exception("task %s needs a library", plan["task"])
        missing = f"The server lacks the library {error.name} for this: pip install 'serving[monitor]'."
        return _refusal(ServiceUnavailable(missing))
    except MemoryError:
        return _refusal(ServiceUnavailable("There is not enough memory for this."))
    except OSError as error:  # no space, no descriptors: this may pass, and the run is made again
        log.exception("task %s cannot go on", plan["task"])
        return _refusal(ServiceUnavailable(f"The monitor process cannot go on: {error.strerror or 'an I/O error'}."))
    except Exception:
        log.exception("task %s failed", plan["task"])
        return _refusal(InternalFailure("An internal failure occurred; the server's log says more."))


def means(plan: Mapping[str, Any]) -> Means:
    """What a task may use, by the plan. Raises ``ServingError``."""
    settings, run_dir = settings_of(plan["settings"]), Path(plan["run_dir"])
    explainer = run_dir / "explain.sock"
    return Means(
        settings,
        open_objects(settings),
        staging=settings.data_dir / "capture",
        metrics_folder=run_dir / "metrics",
        explainer=explainer,
        attributions=partial(_attributions, explainer),
    )


def _attributions(
    socket: Path,
    endpoint: str,
    variant: str,
    calls: Sequence[tuple[bytes, str, str, str]],
    config: Mapping[str, Any] | None,
) -> Attributed:
    """Ask the explain process (``tasks.Attributions``)."""
    from serving.explain.asking import Asked, attributions

    return attributions(socket, endpoint, variant, [Asked(*call) for call in calls], config)


def _refusal(error: ServingError) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": error.message}


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _own_output() -> int:
    """The answer's own file descriptor: what a library prints goes to the log."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def _die_with_control() -> None:
    with suppress(OSError, AttributeError):  # elsewhere the closed input has to do
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _be_humble() -> None:
    with suppress(OSError):
        os.nice(_NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_when_unwanted() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
