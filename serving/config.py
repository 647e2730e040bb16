"""Every setting, in one table; the only module that reads the environment.

A setting is one field of ``Settings``: its name, type, default and help stand there and nowhere else. The command line
help, ``serving settings`` and the README test are generated from ``SETTINGS``, which is read off those fields.

Precedence, highest first: command line, ``SERVING_*`` environment, settings file (TOML, YAML or JSON; named by
``--settings`` or ``SERVING_SETTINGS``), default. An empty environment variable counts as unset.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard

from serving.errors import ConfigError

PREFIX = "SERVING_"


# --- kinds of values ------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A type of setting: what it looks like, in words, and how it is read. ``parse`` raises ``ValueError``."""

    expected: str
    parse: Callable[[object], object]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value.strip():
        raise ValueError
    return value.strip()


def _matching(expected: str, pattern: str) -> Kind:
    def parse(value: object) -> str:
        # YAML reads 123456789012 as a number: what counts is how it is written.
        text = _text(str(value) if _is_int(value) else value)
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError
        return text

    return Kind(expected, parse)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(low: int, high: int) -> Kind:
    def parse(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value.strip(), re.ASCII):
            value = int(value)
        if not _is_int(value) or not low <= value <= high:
            raise ValueError
        return value

    return Kind(f"a whole number from {low} to {high}", parse)


def _seconds(value: object) -> float:
    seconds = _pause(value)
    if not seconds:
        raise ValueError
    return seconds


def _pause(value: object) -> float:
    if isinstance(value, str):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 86_400:
        raise ValueError
    return float(value)


_UNITS: dict[str, int] = {"": 1} | {
    spelling: factor**power
    for power, letter in enumerate("kmgt", start=1)
    for spelling, factor in ((letter, 1024), (f"{letter}ib", 1024), (f"{letter}b", 1000))
}
_UNITS["b"] = 1


def parse_size(value: object) -> int:
    """Bytes of ``256MB`` (10^6), ``1.5GiB`` or ``1.5G`` (2^30), ``4096``. Raises ``ValueError``."""
    if _is_int(value) and value >= 0:
        return value
    text = value.strip().lower() if isinstance(value, str) else ""
    match = re.fullmatch(r"(\d{1,15})(?:\.(\d{1,9}))?\s*([a-z]*)", text, re.ASCII)
    if match is None or match[3] not in _UNITS:
        raise ValueError
    decimals = match[2] or ""
    scale: int = 10 ** len(decimals)
    return int(match[1] + decimals) * _UNITS[match[3]] // scale


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ValueError


def _path(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise ValueError
    try:
        return Path(value).expanduser()
    except RuntimeError:  # ~nobody-of-that-name
        raise ValueError from None


def _choice(*words: str) -> Kind:
    def parse(value: object) -> str:
        word = value.strip().lower() if isinstance(value, str) else ""
        if word not in words:
            raise ValueError
        return word

    return Kind(" or ".join(words), parse)


def _many(expected: str, parse_one: Callable[[object], object]) -> Kind:
    def parse(value: object) -> tuple[object, ...]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ValueError
        return tuple(parse_one(item) for item in items if item != "")

    return Kind(expected, parse)


def _object_store(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"local|aws|https?://[^\s/]+/?", text):
        raise ValueError
    return text.rstrip("/")


def _database(value: object) -> str:
    text = _text(value)
    if text and not re.fullmatch(r"sqlite:///\S+|postgresql(\+psycopg)?://\S+", text):
        raise ValueError
    return re.sub(r"\Apostgresql://", "postgresql+psycopg://", text)


def _age(value: object) -> float:
    seconds = float(value) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 31_536_000:
        raise ValueError
    return float(seconds)


def _host(value: object) -> str:
    text = _text(value).lower()
    if not re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", text):
        raise ValueError
    return text


TEXT = Kind("text", _text)
SIZE = Kind("a size such as 256MB, 1.5GiB or a number of bytes", parse_size)
SECONDS = Kind("a number of seconds above 0, at most 86400", _seconds)
PAUSE = Kind("a number of seconds, at most 86400", _pause)
FLAG = Kind("true or false", _flag)
PATH = Kind("a path", _path)
PATHS = _many("folders, separated by commas", _path)
OBJECT_STORE = Kind("local, aws or the http(s) URL of an S3-compatible store", _object_store)
AGE = Kind("a number of seconds above 0, at most 31536000", _age)
HOSTS = _many("host names, separated by commas", _host)
DATABASE = Kind("sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE", _database)
ACCOUNT = _matching("12 digits", r"\d{12}")
REGION = _matching("a region such as us-east-1", r"[a-z0-9-]{1,32}")
PREFIX_URL = _matching("s3://BUCKET or s3://BUCKET/PREFIX", r"s3://[a-zA-Z0-9][a-zA-Z0-9.-]{1,62}(/[^/\s]+)*/?")
ENDPOINT = _matching("an endpoint name (letters, digits, hyphens; at most 63)", r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


# --- the table ------------------------------------------------------------------------------------------------------

# ruff: noqa: RUF009  # _row is dataclasses.field with our metadata; its defaults are immutable


def _row(default: object, kind: Kind, text: str, env: str = "") -> Any:
    return field(default=default, metadata={"kind": kind, "help": text, "env": env})


@dataclass(frozen=True, slots=True)
class Settings:
    """How this server runs. Sizes are bytes, durations seconds, paths absolute; a value that exists is valid.

    Raises ``ConfigError`` when fields contradict each other (an open address without access keys).
    """

    host: str = _row("127.0.0.1", TEXT, "Address to listen on. Anything but loopback needs SERVING_ACCESS_KEYS.")
    port: int = _row(8080, _whole(0, 65535), "Port to listen on; 0 = any free one.")
    data_dir: Path = _row(Path(".serving"), PATH, "Folder of everything the server writes; one server per folder.")
    database_url: str = _row("", DATABASE, "Where the state is kept; empty = SQLite in the data folder.")
    settings_file: Path | None = _row(None, PATH, "TOML, YAML or JSON file of these settings.", "SETTINGS")
    account_id: str = _row("123456789012", ACCOUNT, "Account id in the ARNs the server makes up.")
    region: str = _row("us-east-1", REGION, "Region in those ARNs.")
    fronts: int = _row(1, _whole(1, 256), "Processes that accept connections, sharing the port.")
    model_memory: int = _row(0, SIZE, "Memory for resident models; 0 = half of what this machine or container has.")
    disk_cache: int = _row(10 * 2**30, SIZE, "Disk space for fetched and unpacked artifacts.", "ARTIFACT_DISK")
    worker_memory: int = _row(0, SIZE, "Memory a worker may use before it is stopped; 0 = derived from model_memory.")
    worker_recycle: int = _row(0, SIZE, "Memory beyond its start at which a worker is replaced; 0 = its share + 10 %.")
    allow_code: bool = _row(False, FLAG, "Load formats that are code: scripts, pickle, joblib, TorchScript, .pt2.")
    threads: int = _row(0, _whole(0, 1024), "Native threads shared by the workers; 0 = the cores this process may use.")
    max_batch_calls: int = _row(256, _whole(1, 65536), "Calls predicted in one go at most, when they wait together.")
    max_queue: int = _row(1024, _whole(1, 2**20), "Calls a variant holds, waiting and running; above it: 429.")
    max_connections: int = _row(4096, _whole(1, 2**20), "Connections open at once per front; above it: 503.")
    max_body_bytes: int = _row(6_291_456, SIZE, "Largest request body; SageMaker's limit is the default.", "MAX_BODY")
    max_header_bytes: int = _row(32 * 1024, SIZE, "Largest request line and headers together.", "MAX_HEADER")
    invocation_timeout_seconds: float = _row(60.0, SECONDS, "Time a call may take before 424 ModelError.")
    stream_timeout_seconds: float = _row(480.0, SECONDS, "Time a streamed answer may take from the call to its end.")
    load_timeout_seconds: float = _row(360.0, SECONDS, "Time a model may take to be fetched and loaded.")
    receive_timeout_seconds: float = _row(30.0, SECONDS, "Time a client may take to send a request or read the answer.")
    drain_seconds: float = _row(30.0, SECONDS, "Time accepted calls get to finish after SIGTERM.")
    settle_seconds: float = _row(
        2.0, PAUSE, "Time a control call may wait for what it changed; 0 = answer at once, as AWS does."
    )
    fast_path: bool = _row(True, FLAG, "Answer invocations inside the HTTP protocol; false = through plain ASGI.")
    default_endpoint: str = _row("default", ENDPOINT, "Endpoint that /ping and /invocations stand for.")
    access_keys: Path | None = _row(None, PATH, "JSON or YAML list of {AccessKeyId, SecretAccessKey, Permissions}.")
    ground_truth: str = _row("s3://ground-truth", PREFIX_URL, "Where labels are kept, in a folder for each endpoint.")
    s3: str = _row("local", OBJECT_STORE, "What s3:// means: local = DATA_DIR/s3, aws, or a store's URL.")
    file_roots: tuple[Path, ...] = _row((), PATHS, "Folders below which file:// artifacts may lie.")
    notify_hosts: tuple[str, ...] = _row((), HOSTS, "Hosts that notifications may go to, as HOST or HOST:PORT.")
    job_retention_seconds: float = _row(604_800.0, AGE, "Time that ended asynchronous calls stay in the books.")
    capture_details: bool = _row(
        False, FLAG, "Captured records also tell the target model, the trace context and the receipt."
    )
    capture_disk_percent: int = _row(75, _whole(1, 100), "Capture stops while a disk is fuller than this, in percent.")
    scaling_period_seconds: float = _row(
        5.0, SECONDS, "Length of one period in which scaling policies evaluate their metrics; AWS's is 60."
    )
    scale_to_zero: bool = _row(False, FLAG, "Real-time variants may have MinCapacity 0, as others may anyway.")
    hold_on_zero_seconds: float = _row(
        60.0,
        PAUSE,
        "Time a call waits for the first worker of what was scaled to zero; 0 = refused at once, as by AWS.",
    )
    serverless_idle_seconds: float = _row(
        300.0, SECONDS, "Time without calls before a serverless variant has no worker."
    )
    most_workers: int = _row(
        0, _whole(0, 65536), "Workers that scaling may add in all, beyond each target's minimum; 0 = 4 for each core."
    )
    log_format: Literal["text", "json"] = _row("text", _choice("text", "json"), "Shape of a log line.")
    log_level: Literal["debug", "info", "warning", "error"] = _row(
        "info", _choice("debug", "info", "warning", "error"), "Least serious message that is logged."
    )

    def __post_init__(self) -> None:
        """Fill in what depends on the machine; refuse what must not start (``reliability.md`` promise 22)."""
        derived = {
            "data_dir": self.data_dir.absolute(),
            "model_memory": self.model_memory or usable_memory() // 2,
            "threads": self.threads or usable_cores(),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        if not is_loopback(self.host) and self.access_keys is None:
            raise ConfigError(
                f"{PREFIX}HOST is {self.host!r}, which other machines can reach; set {PREFIX}ACCESS_KEYS to a file of "
                "access keys, or listen on 127.0.0.1."
            )

    @property
    def queue_url(self) -> str:
        """Where the queue of asynchronous calls and jobs is kept: a file of its own, as two processes must not fight
        for one write lock; or the same PostgreSQL database, in tables of its own."""
        if self.database_url.startswith("postgresql"):
            return self.database_url
        return f"sqlite:///{self.data_dir / 'queue.db'}"

    @property
    def has_queue(self) -> bool:
        """May there be work in the queue already?"""
        return not self.queue_url.startswith("sqlite") or (self.data_dir / "queue.db").exists()


class Setting(NamedTuple):
    """One row of the table. ``key`` is its name in a settings file, ``flag`` its option where a command has it."""

    name: str
    env: str
    key: str
    kind: Kind
    default: object
    help: str

    @property
    def default_text(self) -> str:
        """The default as a person would write it: empty when there is none."""
        if self.default is None or self.default == ():
            return ""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if self.kind is SIZE and _is_int(self.default) and self.default:
            return _size_text(self.default)
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


def _size_text(size: int) -> str:
    power = next(p for p in (3, 2, 1, 0) if size % 1024**p == 0)
    return f"{size // 1024**power}{('', 'KiB', 'MiB', 'GiB')[power]}"


def _table() -> tuple[Setting, ...]:
    rows = []
    for one in fields(Settings):
        tail = one.metadata["env"] or one.name.upper()
        default = None if one.default is MISSING else one.default
        rows.append(Setting(one.name, PREFIX + tail, tail.lower(), one.metadata["kind"], default, one.metadata["help"]))
    return tuple(rows)


SETTINGS: tuple[Setting, ...] = _table()


# --- reading them ---------------------------------------------------------------------------------------------------


def load_settings(overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this run. ``overrides``: values by field name, as the command line gave them (``None`` = not
    given). ``environ``: the process's own unless a test brings another. Raises ``ConfigError``."""
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    _refuse_near_misses(environ)
    values: dict[str, object] = {}
    file = given.get("settings_file") or environ.get(f"{PREFIX}SETTINGS")
    if file:
        values |= _from_file(Path(str(file)))
    for row in SETTINGS:
        if environ.get(row.env):
            values[row.name] = _parsed(row, environ[row.env], row.env)
        if row.name in given:
            values[row.name] = _parsed(row, given[row.name], f"--{row.key.replace('_', '-')}")
    return Settings(**values)  # type: ignore[arg-type]  # each value was parsed by its own row


def _from_file(path: Path) -> dict[str, object]:
    rows = {row.key: row for row in SETTINGS if row.name != "settings_file"}
    values: dict[str, object] = {}
    for key, raw in read_document(path).items():
        if key not in rows:
            raise ConfigError(f"{path.name} has no setting {key!r}{did_you_mean(key, rows)}.")
        value = _parsed(rows[key], raw, f"{key} in {path.name}")
        values[rows[key].name] = _relative_to(path.parent, value)
    return values


def _relative_to(folder: Path, value: object) -> object:
    """A relative path in a settings file is meant from that file's folder, wherever the server is started."""
    if isinstance(value, Path):
        return folder / value
    return tuple(_relative_to(folder, item) for item in value) if isinstance(value, tuple) else value


def _parsed(row: Setting, raw: object, source: str) -> object:
    try:
        return row.kind.parse(raw)
    except ValueError:
        hint = ""
        if row.name == "port" and str(raw).startswith("tcp://"):
            hint = " (Kubernetes sets it for a Service named 'serving': switch enableServiceLinks off in the pod)"
        raise ConfigError(f"{source} is {masked(repr(raw))}; expected {row.kind.expected}{hint}.") from None


def masked(text: str) -> str:
    """A text fit to be shown: without the password of a URL in it."""
    return re.sub(r"(://[^:/@\s]*:)[^@\s]*@", r"\1***@", text)


def _refuse_near_misses(environ: Mapping[str, str]) -> None:
    """A mistyped variable is an error; one that resembles nothing belongs to somebody else (a later version, a
    Kubernetes service) and is left alone."""
    known = [row.env for row in SETTINGS]
    for name in environ:
        if name.startswith(PREFIX) and name not in known and get_close_matches(name, known, n=1, cutoff=0.9):
            raise ConfigError(f"{name} is not a setting{did_you_mean(name, known)}.")


def client_keys(environ: Mapping[str, str] | None = None) -> tuple[str, str] | None:
    """(access key id, secret) the command line signs with, from the variables every AWS client reads; or None."""
    environ = os.environ if environ is None else environ
    key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    return (key_id, secret) if key_id and secret else None


def traces_exporters(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Where spans are to go by OpenTelemetry's own variables (its specification, SDK environment variables): nowhere
    unless one of them asks for it. Everything else about it the library reads itself."""
    environ = os.environ if environ is None else environ
    named = environ.get("OTEL_TRACES_EXPORTER", "")
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    if not named and not any(environ.get(name) for name in _OTLP_ENDPOINTS):
        return ()
    names = (name.strip().lower() for name in (named or "otlp").split(","))
    return tuple(name for name in dict.fromkeys(names) if name not in ("", "none"))


_OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def wants_colour(is_terminal: bool, environ: Mapping[str, str] | None = None) -> bool:
    """Colours belong on a terminal whose owner has not declined them (https://no-color.org)."""
    environ = os.environ if environ is None else environ
    return is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


# --- files ----------------------------------------------------------------------------------------------------------


def read_document(path: Path) -> dict[str, Any]:
    """The mapping in a ``.toml``, ``.yaml``, ``.yml`` or ``.json`` file. A key given twice is an error, as the first
    value would be lost without a word. Raises ``ConfigError`` with the file's name and line."""
    document = read_value(path)
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigError(f"{path.name} must hold a mapping of names to values.")
    return document


def read_value(path: Path) -> Any:
    """Whatever a settings-like file holds (``read_document`` says which files). Raises ``ConfigError``."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"Cannot read {path}: {why}.") from None
    return _parse_toml(path, text) if path.suffix == ".toml" else _parse_yaml(path, text)


def _parse_toml(path: Path, text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name} is not valid TOML: {error}.") from None


def _parse_yaml(path: Path, text: str) -> Any:
    import yaml  # 30 ms: only those who have such a file pay

    class Loader(yaml.SafeLoader):
        """YAML (so JSON too) with duplicate keys refused."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise yaml.MarkedYAMLError(problem=f"{twice!r} is given twice", problem_mark=node.start_mark)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)  # a SafeLoader: it builds plain values only
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path.name}{where}: {getattr(error, 'problem', None) or 'not valid YAML'}.") from None


def did_you_mean(word: str, known: Mapping[str, object] | list[str] | tuple[str, ...]) -> str:
    """A tail such as ``; did you mean 'port'`` for a message, or nothing."""
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}" if close else ""


# --- the machine ----------------------------------------------------------------------------------------------------


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``. A name other than localhost is not trusted to be."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def usable_cores(root: Path = Path("/")) -> int:
    """Cores this process may use: its CPU affinity, and the container's quota if that is less. At least 1."""
    cores = len(os.sched_getaffinity(0))
    for folder in _cgroup_folders(root, "cpu"):
        quota = _read_words(folder / "cpu.max") or (
            _read_words(folder / "cpu.cfs_quota_us") + _read_words(folder / "cpu.cfs_period_us")
        )
        if len(quota) == 2 and quota[0].isdigit() and int(quota[1]) > 0:
            cores = min(cores, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, cores)


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory this process may use: the machine's, or the tightest limit of the containers around it."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _cgroup_folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            words = _read_words(folder / name)
            if words and words[0].isdigit():  # "max" = no limit
                limit = min(limit, int(words[0]))
    return limit


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """The folders of this process's control group and its parents, version 2 and 1. In a container the path in
    ``/proc/self/cgroup`` may not exist below ``/sys/fs/cgroup``; its parents up to the mount itself do."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        inner = mount / group.lstrip("/")
        folders += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(mount)]
    return folders


def _read_words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def inherited_environment(without: tuple[str, ...]) -> dict[str, str]:
    """This process's environment but for the variables that begin with one of the prefixes ``without``."""
    return {name: value for name, value in os.environ.items() if not name.startswith(without)}


@contextmanager
def borrowed_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables of this process set for the length of a ``with``, and then as they were."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


#: Thread pools of native libraries are sized by these at import, whatever the framework.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"
)  # fmt: skip


def native_environment(threads: int) -> dict[str, str]:
    """The environment of a process that runs models: ours without credentials, with ``threads`` native threads.
    OpenBLAS gets one: it starts its pool at import, and a process is forked only while it has no threads."""
    kept = inherited_environment(without=("AWS_", "OTEL_EXPORTER_", PREFIX))
    sized = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return kept | sized | {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
