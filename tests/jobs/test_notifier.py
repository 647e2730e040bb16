"""One notification to one receiver: what arrives, whom we refuse to call, and what a receiver can do to us."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config import Settings
from serving.jobs import notifier as module
from serving.jobs.notifier import Notifier, Undelivered, receiver_of, target_of
from tests.receivers import Receiver, certificate, drip, hang, says

MESSAGE = {"eventName": "InferenceResult", "inferenceId": "ä"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """A receiver for the whole module."""
    with Receiver() as running:
        running.answers |= {f"/{status}": status for status in (204, 301, 302, 307, 308, 400, 404, 410, 429, 500, 503)}
        running.answers |= {"/hang": hang, "/drip": drip, "/gone": says(b""), "/odd": says(b"hello\r\n")}
        running.answers |= {"/endless": says(b"x" * 200_000), "/old": says(b"HTTP/1.0 200\r\n\r\n")}
        running.answers["/interim"] = says(b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
        yield running


def notifier(*hosts: str, resolve: module.Resolve | None = None, **more: Any) -> Notifier:
    """One whose operator lists these hosts."""
    return Notifier(Settings(notify_hosts=hosts, **more), resolve)


def failure(sender: Notifier, url: str) -> Undelivered:
    """Why it was not delivered."""
    with pytest.raises(Undelivered) as caught:
        sender.send(url, MESSAGE, "id-1")
    return caught.value


def nobody(host: str, port: int) -> list[str]:
    """Names must not be looked up here."""
    raise AssertionError(f"{host}:{port} was looked up")


# --- what arrives ---------------------------------------------------------------------------------------------------


def test_a_receiver_gets_the_message_and_its_id(receiver: Receiver) -> None:
    """As JSON, under both names of the id, at the path and query of the URL, without the fragment."""
    receiver.received.clear()
    notifier(receiver.place).send(f"{receiver.url}/hook?a=b%20c#part", MESSAGE, "id-1")
    (got,) = receiver.received
    assert ("/hook?a=b%20c", MESSAGE, "id-1") == (got.path, got.message, got.id)
    assert "id-1" == got.headers["X-Amz-Sns-Message-Id"]
    assert "application/json" == got.headers["Content-Type"]
    assert receiver.place == got.headers["Host"]


@pytest.mark.parametrize("path", ["", "/", "/204", "/old", "/interim"])
def test_any_2xx_is_delivered(receiver: Receiver, path: str) -> None:
    """Of HTTP/1.0 and 1.1, after interim answers too."""
    notifier(receiver.place).send(receiver.url + path, MESSAGE, "id-1")


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 503])
def test_a_refusing_receiver_may_be_mended(receiver: Receiver, status: int) -> None:
    """Not for good, whatever it says; only of 429 and 503 do others suffer too."""
    error = failure(notifier(receiver.place), f"{receiver.url}/{status}")
    assert (f"The receiver answered {status}.", False) == (error.reason, error.permanent)
    assert (status in (429, 503)) == error.away


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(receiver: Receiver, status: int) -> None:
    """Wherever they lead."""
    receiver.received.clear()
    assert not failure(notifier(receiver.place), f"{receiver.url}/{status}").permanent
    assert [f"/{status}"] == [got.path for got in receiver.received]


# --- whom we call ---------------------------------------------------------------------------------------------------


def test_only_listed_hosts_are_called(receiver: Receiver) -> None:
    """No list, another host, another port, a part of the name: refused for good, not even looked up."""
    receiver.received.clear()
    lists = [(), ("hooks.example",), (f"127.0.0.1:{receiver.port + 1}",), ("127.0.0.10",), ("0.0.1",)]
    for hosts in lists:
        error = failure(notifier(*hosts, resolve=nobody), receiver.url)
        assert ("The host 127.0.0.1 is not in SERVING_NOTIFY_HOSTS.", True) == (error.reason, error.permanent)
    assert [] == receiver.received


@pytest.mark.parametrize("listed", ["127.0.0.1", "127.0.0.1:{port}", "localhost", "LOCALHOST:{port}"])
def test_listed_hosts_are_called(receiver: Receiver, listed: str) -> None:
    """By name or address, with one port or with any."""
    entry = listed.format(port=receiver.port)
    host = entry.partition(":")[0]
    notifier(entry).send(f"http://{host}:{receiver.port}/", MESSAGE, "id-1")


NO_TARGETS = (
    "", "hook", "ftp://h/", "file:///etc/passwd", "http://", "http:///x", "http://h:0/", "http://h:99999/", "//h/x",
    "http://h:x/", "http://user@h/", "http://user:pw@h/", "http://h\\@evil/", "http://h/ x", "http://h/\r\nX: y",
    "http://h/ä", "http://ä/", "http://[::1/", "http://[fe80::1%25eth0]/", "http://h%2eevil/", "gopher://h/",
    "http://h\t/", "javascript:x", "arn:aws:sqs:us-east-1:123456789012:q", f"http://h/{'x' * 2048}",
)  # fmt: skip


@pytest.mark.parametrize("url", NO_TARGETS)
def test_what_could_be_read_in_two_ways_is_no_url(url: str) -> None:
    """For good; nothing is looked up."""
    assert failure(notifier("h", "evil", "::1", resolve=nobody), url).permanent


@given(st.text(max_size=40) | st.text("htps:/[]@.%:#?\\0123aå \n", max_size=40).map(lambda text: f"http://{text}"))
def test_no_text_breaks_the_reading(text: str) -> None:
    """It is a target, or a malformed topic."""
    receiver_of(text)
    try:
        target = target_of(text)
    except Undelivered as error:
        assert error.permanent
    else:
        assert target.host
        assert "\n" not in target.path + target.authority
        assert 0 < target.port < 65_536


NEVER = (
    "169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fd00:ec2::254",
    "100.100.100.200", "168.63.129.16", "0.0.0.0", "::", "0.1.2.3", "224.0.0.1", "ff02::1", "255.255.255.255",
    "::ffff:0.0.0.0", "fe80::1%eth0",
)  # fmt: skip
LOOPBACK = ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1")


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_called(address: str) -> None:
    """Link-local ones, metadata services, those that are no host's: neither by a listed name nor listed themselves."""
    plain = address.partition("%")[0]
    error = failure(notifier("hooks.example", plain, resolve=lambda *_: [address]), "http://hooks.example/")
    assert error.reason.startswith("The host hooks.example has ")
    url = f"http://[{plain}]/" if ":" in plain else f"http://{plain}/"
    listed = f"[{plain}]" if ":" in plain else plain
    assert failure(notifier(listed, resolve=lambda *_: [plain]), url).permanent


@pytest.mark.parametrize("address", LOOPBACK)
def test_a_name_does_not_lead_to_this_machine(address: str) -> None:
    """A listed name that resolves to loopback is refused for now; so is one with a single bad address among good."""
    for found in ([address], ["198.51.100.7", address]):
        error = failure(notifier("hooks.example", resolve=lambda *_, found=found: found), "http://hooks.example/")
        assert "a loopback address, which must be listed itself" in error.reason
        assert (False, True) == (error.permanent, error.away)


def test_a_name_is_looked_up_once_and_connected_to_what_was_checked(receiver: Receiver) -> None:
    """The second look-up of a rebinding name never happens; the receiver is asked by its name; the first address that
    takes the connection is taken. (Listed with the loopback addresses it leads to.)"""
    answers = [["127.0.0.2", "127.0.0.1"], ["169.254.169.254"]]
    receiver.received.clear()
    sender = notifier("hooks.example", "127.0.0.1", "127.0.0.2", resolve=lambda *_: answers.pop(0))
    sender.send(f"http://Hooks.Example.:{receiver.port}/", MESSAGE, "id-1")
    assert 1 == len(answers)
    assert f"hooks.example:{receiver.port}" == receiver.received[0].headers["Host"]


def test_private_networks_are_called_by_listed_names() -> None:
    """That is where receivers live."""
    for address in ("10.1.2.3", "192.168.0.1", "172.16.0.1", "fd00::1", "8.8.8.8", "2001:4860:4860::8888"):
        listed = module._listed_host("hooks.example")
        target = target_of("https://hooks.example/")
        assert [address] == module.allowed_addresses(target, [listed], lambda *_, address=address: [address])


def test_a_name_that_is_not_found_may_come_back() -> None:
    """A failing DNS is no refusal; a name that no DNS can hold is."""

    def not_found(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, f"{host}:{port}")

    error = failure(notifier("none.invalid", resolve=not_found), "http://none.invalid/")
    assert ("The host none.invalid was not found.", False, True) == (error.reason, error.permanent, error.away)
    assert failure(notifier("x" * 70), f"http://{'x' * 70}/").permanent


# --- what receivers can do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/hang", "did not answer within 0.3 s"),
        ("/drip", "did not answer within 0.3 s"),
        ("/gone", "gave no HTTP answer"),
        ("/odd", "gave no HTTP answer"),
        ("/endless", "gave no HTTP answer"),
    ],
)
def test_a_receiver_that_misbehaves_costs_its_time_and_no_more(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    """It may do better later."""
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    error = failure(notifier(receiver.place), receiver.url + path)
    assert reason in error.reason
    assert not error.permanent


def test_a_receiver_that_is_not_there_may_come_back() -> None:
    """Nobody listens."""
    error = failure(notifier("127.0.0.1"), "http://127.0.0.1:1/")
    assert ("The receiver could not be reached.", False, True) == (error.reason, error.permanent, error.away)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with")
def test_tls_verifies_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody trusts and one for another name are refused; the right one is taken."""
    context, trusted = certificate(tmp_path, "hooks.example")
    with Receiver(tls=context) as receiver:
        hosts = ("127.0.0.1", "hooks.example", "other.example")

        def sender() -> Notifier:
            return notifier(*hosts, resolve=lambda *_: ["127.0.0.1"])

        assert "TLS failed" in failure(sender(), f"https://hooks.example:{receiver.port}/").reason
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        sender().send(f"https://hooks.example:{receiver.port}/", MESSAGE, "id-1")
        for host in ("other.example", "127.0.0.1"):
            error = failure(sender(), f"https://{host}:{receiver.port}/")
            assert "TLS failed" in error.reason
            assert not error.permanent
        assert ["id-1"] == [got.id for got in receiver.received]


def test_many_threads_may_send_at_once(receiver: Receiver) -> None:
    """One notifier for all."""
    receiver.received.clear()
    sender = notifier(receiver.place)
    threads = [threading.Thread(target=sender.send, args=(receiver.url, MESSAGE, f"id-{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"id-{n}" for n in range(8)} == {got.id for got in receiver.received}


# --- SNS ------------------------------------------------------------------------------------------------------------

TOPIC = "arn:aws:sns:eu-west-1:123456789012:done"
PUBLISHED = b"<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>"


def xml(status: int, data: bytes) -> Any:
    """An answer of SNS's query protocol."""
    head = f"HTTP/1.1 {status} x\r\nContent-Type: text/xml\r\nContent-Length: {len(data)}\r\n\r\n"
    return says(head.encode() + data)


@pytest.fixture
def sns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """What boto3's own settings say is SNS."""
    with Receiver() as running:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", running.url)
        running.answers["/"] = xml(200, PUBLISHED)
        yield running


def test_sns_topics_are_published_to(sns: Receiver) -> None:
    """Through boto3, in the topic's region, with the id as an attribute; of a FIFO topic, as its deduplication id."""
    sender = notifier(s3="http://127.0.0.1:1")
    for topic in (TOPIC, f"{TOPIC}.fifo"):
        sender.send(topic, MESSAGE, "id-1")
    sender.close()
    plain, fifo = (parse_qs(got.body.decode()) for got in sns.received)
    assert ([TOPIC], ['{"eventName":"InferenceResult","inferenceId":"ä"}']) == (plain["TopicArn"], plain["Message"])
    assert "id-1" in plain["MessageAttributes.entry.1.Value.StringValue"]
    assert ["id-1"] == fifo["MessageDeduplicationId"]
    assert "/eu-west-1/sns/" in sns.received[0].headers["Authorization"]


@pytest.mark.parametrize(
    ("status", "code", "permanent"), [(404, "NotFound", False), (400, "InvalidParameter", True), (500, "Odd", False)]
)
def test_sns_may_refuse(sns: Receiver, status: int, code: str, permanent: bool) -> None:
    """What it calls invalid stays so; a topic may yet be made."""
    sns.answers["/"] = xml(status, f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>".encode())
    sender = notifier(s3="http://127.0.0.1:1")
    error = failure(sender, TOPIC)
    sender.close()
    assert (f"SNS answered '{code}'.", permanent) == (error.reason, error.permanent)


def test_sns_needs_aws() -> None:
    """With the bucket folder there is none; a malformed ARN is no topic anywhere."""
    assert "SERVING_S3 is local" in failure(notifier(), TOPIC).reason
    for topic in ("arn:aws:sns:eu-west-1:1:done", "arn:aws:sns:eu-west-1:123456789012:", f"{TOPIC}\n"):
        assert failure(notifier(s3="aws"), topic).permanent


def test_sns_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens."""
    for name, value in {
        "ACCESS_KEY_ID": "x",
        "SECRET_ACCESS_KEY": "x",
        "ENDPOINT_URL_SNS": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    sender = notifier(s3="aws")
    error = failure(sender, TOPIC)
    sender.close()
    assert ("SNS could not be reached.", False, True) == (error.reason, error.permanent, error.away)
