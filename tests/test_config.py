"""Settings: four sources in order, typed, each error naming the setting, its value and what was expected."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config import (
    SETTINGS,
    Setting,
    Settings,
    client_keys,
    did_you_mean,
    is_loopback,
    load_settings,
    masked,
    parse_size,
    read_document,
    usable_cores,
    usable_memory,
    wants_colour,
)
from serving.errors import ConfigError


def settings(tmp_path: Path, toml: str = "", env: dict[str, str] | None = None, **overrides: object) -> Settings:
    """Settings from a file, an environment and a command line."""
    file = tmp_path / "settings.toml"
    file.write_text(toml)
    return load_settings({"settings_file": str(file)} | overrides, env or {})


# --- where a value comes from ---------------------------------------------------------------------------------------


def test_every_setting_has_its_documented_default() -> None:
    """The defaults of ``design.md`` 1 and ``reliability.md``, all of them."""
    expected = {
        "SERVING_HOST": "127.0.0.1",
        "SERVING_PORT": "8080",
        "SERVING_DATA_DIR": ".serving",
        "SERVING_DATABASE_URL": "",
        "SERVING_SETTINGS": "",
        "SERVING_ACCOUNT_ID": "123456789012",
        "SERVING_REGION": "us-east-1",
        "SERVING_FRONTS": "1",
        "SERVING_MODEL_MEMORY": "0",
        "SERVING_ARTIFACT_DISK": "10GiB",
        "SERVING_WORKER_MEMORY": "0",
        "SERVING_WORKER_RECYCLE": "0",
        "SERVING_ALLOW_CODE": "false",
        "SERVING_THREADS": "0",
        "SERVING_MAX_BATCH_CALLS": "256",
        "SERVING_MAX_QUEUE": "1024",
        "SERVING_MAX_CONNECTIONS": "4096",
        "SERVING_MAX_BODY": "6MiB",
        "SERVING_MAX_HEADER": "32KiB",
        "SERVING_INVOCATION_TIMEOUT_SECONDS": "60",
        "SERVING_STREAM_TIMEOUT_SECONDS": "480",
        "SERVING_LOAD_TIMEOUT_SECONDS": "360",
        "SERVING_RECEIVE_TIMEOUT_SECONDS": "30",
        "SERVING_DRAIN_SECONDS": "30",
        "SERVING_SETTLE_SECONDS": "2",
        "SERVING_FAST_PATH": "true",
        "SERVING_DEFAULT_ENDPOINT": "default",
        "SERVING_ACCESS_KEYS": "",
        "SERVING_GROUND_TRUTH": "s3://ground-truth",
        "SERVING_S3": "local",
        "SERVING_FILE_ROOTS": "",
        "SERVING_NOTIFY_HOSTS": "",
        "SERVING_JOB_RETENTION_SECONDS": "604800",
        "SERVING_CAPTURE_DETAILS": "false",
        "SERVING_CAPTURE_DISK_PERCENT": "75",
        "SERVING_SCALING_PERIOD_SECONDS": "5",
        "SERVING_SCALE_TO_ZERO": "false",
        "SERVING_HOLD_ON_ZERO_SECONDS": "60",
        "SERVING_SERVERLESS_IDLE_SECONDS": "300",
        "SERVING_MOST_WORKERS": "0",
        "SERVING_LOG_FORMAT": "text",
        "SERVING_LOG_LEVEL": "info",
    }
    assert expected == {row.env: row.default_text for row in SETTINGS}


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.env)
def test_a_default_can_be_written_down(row: Setting) -> None:
    """What the table shows as the default is accepted as a value, and means the default."""
    if row.default_text:
        assert row.default == row.kind.parse(row.default_text)


def test_sources_in_order(tmp_path: Path) -> None:
    """Command line over environment over file over default."""
    assert 8080 == settings(tmp_path).port
    assert 1 == settings(tmp_path, "port = 1").port
    assert 2 == settings(tmp_path, "port = 1", {"SERVING_PORT": "2"}).port
    assert 3 == settings(tmp_path, "port = 1", {"SERVING_PORT": "2"}, port=3).port


def test_an_option_not_given_overrides_nothing(tmp_path: Path) -> None:
    """``None`` is what an absent option looks like."""
    assert 1 == settings(tmp_path, "port = 1", port=None).port


def test_an_empty_variable_is_unset(tmp_path: Path) -> None:
    """Compose files pass variables on that nobody set."""
    assert 1 == settings(tmp_path, "port = 1", {"SERVING_PORT": ""}).port


def test_the_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    """And YAML does as well as TOML."""
    file = tmp_path / "s.yaml"
    file.write_text("model_memory: 256MB\nallow_code: yes\naccount_id: 210987654321\n")
    got = load_settings({}, {"SERVING_SETTINGS": str(file)})
    assert (256_000_000, True, "210987654321") == (got.model_memory, got.allow_code, got.account_id)


def test_paths_in_a_file_are_meant_from_its_folder(tmp_path: Path) -> None:
    """Wherever the server is started; those of the environment from where it is started."""
    got = settings(tmp_path, 'data_dir = "state"\nfile_roots = ["a", "/b"]')
    assert (tmp_path / "state", (tmp_path / "a", Path("/b"))) == (got.data_dir, got.file_roots)
    assert Path.cwd() / "x" == load_settings({"data_dir": "x"}, {}).data_dir


def test_lists_are_separated_by_commas(tmp_path: Path) -> None:
    """In the environment; a file has real lists."""
    got = settings(tmp_path, "", {"SERVING_FILE_ROOTS": "/models,/more"})
    assert (Path("/models"), Path("/more")) == got.file_roots


def test_a_database_is_named_by_url_and_its_password_is_shown_to_nobody(tmp_path: Path) -> None:
    """Not by a message about a URL that is none, either."""
    url = "postgresql://serving:hush@db/state"
    got = settings(tmp_path, "", {"SERVING_DATABASE_URL": url})
    assert "postgresql+psycopg://serving:hush@db/state" == got.database_url
    assert "postgresql+psycopg://serving:***@db/state" == masked(got.database_url)
    with pytest.raises(ConfigError, match="expected sqlite:///PATH or postgresql://") as caught:
        settings(tmp_path, "", {"SERVING_DATABASE_URL": url.replace("postgresql", "mysql")})
    assert "hush" not in caught.value.message


def test_a_control_call_may_wait_for_nothing(tmp_path: Path) -> None:
    """0 seconds: answered at once, as AWS does."""
    assert 0.0 == settings(tmp_path, "", {"SERVING_SETTLE_SECONDS": "0"}).settle_seconds


def test_settings_cannot_change() -> None:
    """Every process sees what the first one read."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_settings({}, {}).port = 1  # type: ignore[misc]  # that is the point


# --- what is refused ------------------------------------------------------------------------------------------------

WRONG = [
    ("SERVING_PORT", "70000", "whole number from 0 to 65535"),
    ("SERVING_PORT", "80.5", "whole number"),
    ("SERVING_PORT", "tcp://10.0.0.1:8080", "enableServiceLinks"),
    ("SERVING_FRONTS", "0", "whole number from 1"),
    ("SERVING_MODEL_MEMORY", "lots", "256MB"),
    ("SERVING_MODEL_MEMORY", "-1", "256MB"),
    ("SERVING_ALLOW_CODE", "maybe", "true or false"),
    ("SERVING_INVOCATION_TIMEOUT_SECONDS", "nan", "seconds"),
    ("SERVING_INVOCATION_TIMEOUT_SECONDS", "0", "seconds"),
    ("SERVING_INVOCATION_TIMEOUT_SECONDS", "1 minute", "seconds"),
    ("SERVING_SETTLE_SECONDS", "-1", "seconds"),
    ("SERVING_LOG_FORMAT", "xml", "text or json"),
    ("SERVING_S3", "ftp://x", "local, aws or"),
    ("SERVING_ACCOUNT_ID", "12", "12 digits"),
    ("SERVING_REGION", "EU West", "region"),
    ("SERVING_DEFAULT_ENDPOINT", "a b", "endpoint name"),
    ("SERVING_HOST", "a\nb", "text"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_a_wrong_value_is_named(name: str, value: str, expected: str) -> None:
    """The variable, what it holds, and the form it should have."""
    with pytest.raises(ConfigError) as caught:
        load_settings({}, {name: value})
    assert caught.value.message.startswith(f"{name} is {value!r}; expected ")
    assert expected in caught.value.message


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.env)
@given(value=st.text(st.characters(exclude_characters="\x00")))
def test_any_value_is_read_or_refused(row: Setting, value: str) -> None:
    """No text makes a parser fail in another way than it should."""
    with suppress(ValueError):
        row.kind.parse(value)


@pytest.mark.parametrize("value", [True, None, 1.5, [], {}, "x"])
def test_a_wrong_type_in_a_file_is_refused(tmp_path: Path, value: object) -> None:
    """YAML has opinions about types; a port is a number all the same."""
    file = tmp_path / "s.yaml"
    file.write_text(f"port: {value!r}\n".replace("True", "true").replace("None", "null"))
    with pytest.raises(ConfigError, match=r"^port in s\.yaml is "):
        load_settings({"settings_file": str(file)}, {})


def test_an_unknown_key_of_a_file_is_refused(tmp_path: Path) -> None:
    """With the nearest one that exists."""
    with pytest.raises(ConfigError, match=r"settings\.toml has no setting 'prot'; did you mean 'port'"):
        settings(tmp_path, "prot = 1")


def test_a_settings_file_does_not_name_another(tmp_path: Path) -> None:
    """One file."""
    with pytest.raises(ConfigError, match="no setting 'settings'"):
        settings(tmp_path, 'settings = "x"')


def test_a_mistyped_variable_is_refused() -> None:
    """It would otherwise do nothing without a word."""
    with pytest.raises(ConfigError, match="SERVING_LOGFORMAT is not a setting; did you mean 'SERVING_LOG_FORMAT'"):
        load_settings({}, {"SERVING_LOGFORMAT": "json"})


def test_somebody_elses_variable_is_left_alone() -> None:
    """Kubernetes adds some for every Service, and later versions have more."""
    others = {"SERVING_SERVICE_HOST": "10.0.0.1", "SERVING_PORT_8080_TCP_ADDR": "10.0.0.1", "SERVING_PROFILE_URL": "x"}
    assert Settings() == load_settings({}, others)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example.org", "127.1"])
def test_an_open_address_needs_keys(host: str, tmp_path: Path) -> None:
    """Safe by default: nothing another machine can reach starts without access keys."""
    with pytest.raises(ConfigError, match="SERVING_ACCESS_KEYS"):
        settings(tmp_path, host=host)
    assert host == settings(tmp_path, host=host, access_keys="keys.json").host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    """Only this machine can reach it."""
    assert is_loopback(host)


# --- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        (4096, 4096),
        ("7b", 7),
        ("1k", 1024),
        ("1KB", 1000),
        ("1 KiB", 1024),
        ("256MB", 256_000_000),
        ("1.5GiB", 1_610_612_736),
        ("0.1GB", 100_000_000),
        ("2T", 2**41),
    ],
)
def test_sizes_read_as_they_are_spoken(text: object, size: int) -> None:
    """Decimal with B, binary with iB or alone, exact to the byte."""
    assert size == parse_size(text)


@pytest.mark.parametrize(
    "text", ["", "MB", "1e3", "1.MB", ".5MB", "-1", "1XB", "1 0", "٣", "9" * 20, True, None, 1.5, -1]
)
def test_what_is_no_size_is_refused(text: object) -> None:
    """Rather than guessed at."""
    with pytest.raises(ValueError):
        parse_size(text)


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "x = ", "a.toml is not valid TOML"),
        ("a.toml", "x = 1\nx = 2", "a.toml is not valid TOML"),
        ("a.yaml", "x: [1", "a.yaml, line"),
        ("a.yaml", "y: 1\nx: 1\nx: 2", "'x' is given twice"),
        ("a.yaml", "a: {x: 1, x: 2}", "'x' is given twice"),
        ("a.json", '{"x": 1, "x": 2}', "'x' is given twice"),
        ("a.yaml", "- 1", "must hold a mapping"),
        ("a.yaml", "1: 2", "must hold a mapping"),
        ("a.yaml", "x: !!python/object/apply:os.getcwd []", "a.yaml, line 1"),
        ("a.yaml", "x: 2026-99-99", "not valid YAML"),
        ("a.yaml", "[" * 5000, "a.yaml"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    """With its name and, where known, the line; no code in it runs."""
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_document(file)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, a folder, or not text."""
    (tmp_path / "bin.yaml").write_bytes(b"\xff\xfe\xff")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "bin.yaml"):
        with pytest.raises(ConfigError, match="Cannot read"):
            read_document(path)


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    """It is a valid document."""
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing yet\n")
    assert {} == read_document(file)


def test_a_suggestion_is_made_only_when_it_is_near() -> None:
    """A far one would mislead."""
    assert ("; did you mean 'port'", "") == (did_you_mean("prot", ["port"]), did_you_mean("zebra", ["port"]))


# --- the machine ----------------------------------------------------------------------------------------------------


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A made-up root folder with control groups."""
    for name, text in ({"proc/self/cgroup": cgroup} | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


LIMITS: list[tuple[str, dict[str, str], Callable[[Path], int], int]] = [
    ("0::/a/b\n", {"sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/memory.max": "1000"}, usable_memory, 1000),
    ("0::/\n", {"sys/fs/cgroup/memory.max": "4096"}, usable_memory, 4096),
    ("5:memory:/gone\n", {"sys/fs/cgroup/memory/memory.limit_in_bytes": "2048"}, usable_memory, 2048),
    ("0::/x\n", {"sys/fs/cgroup/x/cpu.max": "50000 100000"}, usable_cores, 1),
    (
        "3:cpu,cpuacct:/\n",
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
        usable_cores,
        usable_cores(Path("/nowhere")),
    ),
]


@pytest.mark.parametrize(("cgroup", "files", "measure", "expected"), LIMITS)
def test_the_containers_limits_count(
    tmp_path: Path, cgroup: str, files: dict[str, str], measure: Callable[[Path], int], expected: int
) -> None:
    """The tightest of the groups around the process, in both versions of control groups."""
    assert expected == measure(machine(tmp_path, cgroup, files))


def test_models_may_use_half_of_the_memory() -> None:
    """Unless the operator says otherwise; and all the cores."""
    got = load_settings({}, {})
    assert (usable_memory() // 2, usable_cores()) == (got.model_memory, got.threads)


# --- clients --------------------------------------------------------------------------------------------------------


def test_the_client_signs_with_the_usual_variables() -> None:
    """Both or none."""
    both = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    assert (("a", "b"), None) == (client_keys(both), client_keys({"AWS_ACCESS_KEY_ID": "a"}))


@pytest.mark.parametrize(
    ("terminal", "env", "expected"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False)],
)
def test_colours_only_where_wanted(terminal: bool, env: dict[str, str], expected: bool) -> None:
    """A terminal whose owner has not declined."""
    assert expected is wants_colour(terminal, env)
