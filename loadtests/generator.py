"""One way to put load on a port, whichever tool is there: ``wrk`` (C, costs the server's cores least), else our client.

Both are closed loops: a connection sends its next call when the last is answered. So latencies under 64 connections
measure the queue that 64 callers make, and are compared only with the same load on the baseline.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.client import Count, Plan, request_bytes, run_plan
from loadtests.processes import Answer, call

_WRK_TIMEOUT = "30s"
_MARK = "RESULT "

_SCRIPT_HEAD = """
local function read(path) local f = assert(io.open(path, "rb")); local t = f:read("*a"); f:close(); return t end
wrk.method = "POST"
"""

# wrk counts answers above 399 in errors.status; its own report goes to stdout before ours.
_SCRIPT_TAIL = """
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '%s{"calls":%%d,"microseconds":%%d,"p50":%%f,"p99":%%f,"max":%%f,"status":%%d,"lost":%%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Call:
    """One POST: where to, what, and the headers beside Host and Content-Length."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def once(self, port: int, timeout: float = 30.0) -> Answer:
        """Send it once, on a connection of its own."""
        return call(port, "POST", self.path, self.body, self.headers, timeout)

    def raw(self) -> bytes:
        """The whole HTTP request."""
        return request_bytes(self.path, self.body, dict(self.headers))


def tool() -> str:
    """The generator that ``load`` uses here: ``wrk`` or ``client``."""
    return "wrk" if shutil.which("wrk") else "client"


def load(port: int, calls: Sequence[Call], connections: int, seconds: int, with_tool: str = "") -> Count:
    """Send ``calls`` in turn over ``connections`` keep-alive connections for ``seconds``.

    Failures are counted, never raised: the row that they belong to fails.
    """
    if (with_tool or tool()) == "wrk":
        return _wrk(port, calls, connections, seconds)
    return run_plan(Plan(port, tuple(call.raw() for call in calls), connections, seconds))


def _wrk(port: int, calls: Sequence[Call], connections: int, seconds: int) -> Count:
    with tempfile.TemporaryDirectory(prefix="wrk-") as folder:
        script = _write_script(Path(folder), calls)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", _WRK_TIMEOUT, "-s", str(script)]
        process = subprocess.run(
            [*command, f"http://127.0.0.1:{port}{calls[0].path}"],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=False,
        )
    line = next((ln for ln in process.stdout.splitlines() if ln.startswith(_MARK)), "")
    if not line:
        raise RuntimeError(f"wrk gave no result: {process.stdout[-300:]}{process.stderr[-300:]}")
    return _count(json.loads(line.removeprefix(_MARK)))


def _count(result: Mapping[str, float]) -> Count:
    failures = int(result["status"] + result["lost"])
    return Count(
        calls=int(result["calls"] + result["lost"]),
        failures=failures,
        seconds=result["microseconds"] / 1e6,
        p50_us=result["p50"],
        p99_us=result["p99"],
        max_us=result["max"],
        examples=[f"wrk: {result['status']} bad statuses, {result['lost']} lost"] if failures else [],
    )


def _write_script(folder: Path, calls: Sequence[Call]) -> Path:
    """A Lua script for ``calls``. One call is a constant that wrk formats once; many are formatted at start."""
    for place, one in enumerate(calls):
        (folder / f"{place}.request").write_bytes(one.body if len(calls) == 1 else one.raw())
    if len(calls) == 1:
        headers = "".join(f"wrk.headers[{_lua(k)}] = {_lua(v)}\n" for k, v in calls[0].headers.items())
        middle = f"wrk.path = {_lua(calls[0].path)}\n{headers}wrk.body = read({_lua(str(folder / '0.request'))})\n"
    else:
        middle = (
            f"local all, at, n = {{}}, 0, {len(calls)}\n"
            f"local folder = {_lua(str(folder))}\n"
            "function init(args) for i = 1, n do all[i] = read(folder .. '/' .. (i - 1) .. '.request') end end\n"
            "function request() at = at % n + 1; return all[at] end\n"
        )
    script = folder / "load.lua"
    script.write_text(_SCRIPT_HEAD + middle + _SCRIPT_TAIL % _MARK)
    return script


def _lua(text: str) -> str:
    """A Lua string literal; JSON's escapes of printable ASCII are Lua's too."""
    return json.dumps(text)
