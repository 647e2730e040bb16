"""One notification on its way to a receiver: an http(s) URL on the operator's list of hosts, or an SNS topic.

Callers name the URL, so it could be an attempt to reach what only this machine can reach. A host must be listed; its
name is resolved once, every address is looked at, and the connection goes to one of those addresses and nowhere else:
no second look-up, no redirects, no proxies (``reliability.md``, Outbound). Whatever the list says, link-local
addresses and the clouds' metadata services are never called; loopback only for ``localhost`` and for addresses that
are themselves listed. Private networks are where a listed host usually lies.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from serving.config import Settings

#: Seconds for all of it: connecting, TLS, sending, and hearing how the answer begins.
TIMEOUT = 10.0
#: Seconds, and bytes, for the rest of the answer, which interests nobody: some receivers mind when nobody listens.
_REST_SECONDS, _REST_BYTES = 1.0, 65_536
_LONGEST_URL = 2048
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)[ \r\n]")
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:([a-z0-9-]+):\d{12}:[\w-]{1,256}(\.fifo)?", re.ASCII)

#: Metadata services of clouds whose addresses look like others': AWS's by IPv6, Alibaba's, Azure's, Oracle's.
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")))
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Host and port -> its addresses, as text. Raises ``OSError``.
Resolve = Callable[[str, int], Sequence[str]]

log = logging.getLogger("serving.outbox")


class Undelivered(Exception):
    """The receiver does not have the notification, as far as we know. ``permanent``: it never will; ``away``: the
    receiver was not there at all, and others need not be sent to it now."""

    def __init__(self, reason: str, permanent: bool, away: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
        self.away = away


class Notifier:
    """Sends notifications, from any number of threads. SNS is there when ``s3`` is not ``local``: then AWS, or what
    stands in for it, is configured (boto3's own settings say where SNS is)."""

    def __init__(self, settings: Settings, resolve: Resolve | None = None) -> None:
        """Nothing is contacted. ``resolve``: the system's unless a test brings another."""
        self._listed = tuple(map(_listed_host, settings.notify_hosts))
        self._aws = settings.s3 != "local"
        self._resolve = resolve or _addresses
        self._lock = threading.Lock()
        self._topics: dict[str, Any] = {}

    def send(self, topic: str, message: Mapping[str, Any], id: str) -> None:
        """Deliver ``message`` as JSON; returns when the receiver has taken it (2xx). ``id`` goes with it, the same each
        time. Blocks for about ``TIMEOUT`` seconds at most. Raises ``Undelivered``: for good when the topic is
        malformed, not allowed or not to be had here; for now in all other cases, refusals by the receiver included,
        which a mended receiver would take back."""
        data = orjson.dumps(dict(message))
        if topic.startswith("arn:"):
            self._publish(topic, data.decode(), id)
            return
        target = target_of(topic)
        addresses = allowed_addresses(target, self._listed, self._resolve)
        status = asyncio.run(_post(target, addresses, self._tls if target.secure else None, data, id))
        if not 200 <= status < 300:
            raise Undelivered(f"The receiver answered {status}.", permanent=False, away=status in (429, 503))

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Host names are verified, against the system's authorities."""
        return ssl.create_default_context()

    def _publish(self, topic: str, text: str, id: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

        found = _TOPIC.fullmatch(topic)
        if found is None:
            raise Undelivered("The topic is no ARN of an SNS topic.", permanent=True)
        fifo = {"MessageGroupId": "sagemaker", "MessageDeduplicationId": id} if found[2] else {}
        attributes = {"Idempotency-Key": {"DataType": "String", "StringValue": id}}
        client = self._sns(found[1])
        try:
            client.publish(TopicArn=topic, Message=text, MessageAttributes=attributes, **fifo)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            raise Undelivered(f"SNS answered {code[:64]!r}.", permanent=code.startswith("InvalidParameter")) from error
        except ParamValidationError as error:
            raise Undelivered("SNS takes no such message.", permanent=True) from error
        except BotoCoreError as error:
            raise Undelivered("SNS could not be reached.", permanent=False, away=True) from error

    def _sns(self, region: str) -> Any:
        """The client for a region."""
        if not self._aws:
            raise Undelivered("SNS topics need AWS: SERVING_S3 is local.", permanent=True)
        with self._lock:
            if region not in self._topics:
                import boto3
                from botocore.config import Config

                # twice: a connection that was kept alive may have been closed by the other side meanwhile
                config = Config(
                    connect_timeout=TIMEOUT / 2, read_timeout=TIMEOUT / 2, retries={"total_max_attempts": 2}
                )
                self._topics[region] = boto3.session.Session().client("sns", region_name=region, config=config)
            return self._topics[region]

    def close(self) -> None:
        """Close what connections there are."""
        with self._lock:
            for client in self._topics.values():
                client.close()
            self._topics.clear()


# --- where to -------------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """A URL taken apart. ``host``: a name, or an address without brackets; ``authority`` as the Host header has it."""

    secure: bool
    host: str
    port: int
    authority: str
    path: str


class Listed(NamedTuple):
    """A host that notifications may go to; ``port`` 0 = any."""

    host: str
    port: int


def receiver_of(topic: str) -> str:
    """What of a topic is one receiver, which is slow or away as a whole. Never raises."""
    if topic.startswith("arn:"):
        return "sns"
    try:
        target = target_of(topic)
    except Undelivered:
        return ""
    return f"{target.host}:{target.port}"


def target_of(url: str) -> Target:
    """What an http(s) URL names. Raises ``Undelivered`` for everything that could be read in two ways."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _bad_url() from None
    host = (parts.hostname or "").rstrip(".")
    if (
        len(url) > _LONGEST_URL
        or not re.fullmatch(r"[!-~]+", url)
        or "\\" in url
        or parts.scheme not in ("http", "https")
        or "@" in parts.netloc
        or not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*", host)
        or port == 0
    ):
        raise _bad_url()
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    name = f"[{host}]" if ":" in host else host
    return Target(secure, _canonical(host), port or (443 if secure else 80), name + (f":{port}" if port else ""), path)


def allowed_addresses(target: Target, listed: Iterable[Listed], resolve: Resolve) -> list[str]:
    """The addresses to connect to. Raises ``Undelivered`` when the host is not listed, has no address, or one among its
    addresses must not be called."""
    listed = tuple(listed)
    if not _is_listed(target.host, target.port, listed):
        raise Undelivered(f"The host {target.host} is not in SERVING_NOTIFY_HOSTS.", permanent=True)
    try:
        addresses = list(dict.fromkeys(resolve(target.host, target.port)))
    except OSError:
        raise Undelivered(f"The host {target.host} was not found.", permanent=False, away=True) from None
    except UnicodeError:  # a name that DNS cannot hold
        raise _bad_url() from None
    if not addresses:
        raise Undelivered(f"The host {target.host} was not found.", permanent=False, away=True)
    local = target.host == "localhost" or target.host.endswith(".localhost")
    for address in addresses:
        if why := _refusal(address, local or _is_listed(_canonical(address), target.port, listed)):
            raise Undelivered(f"The host {target.host} has {why}.", permanent=_is_address(target.host), away=True)
    return addresses


def _refusal(text: str, loopback: bool) -> str:
    """Why an address must not be called; empty when it may be. ``loopback``: this machine itself may be."""
    address = _embedded(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_loopback:
        return "" if loopback else "a loopback address, which must be listed itself"
    if address.is_link_local or address in _METADATA:
        return "a link-local address or a metadata service's"
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        return "an address that is no host's"
    return "an address that is no host's" if address.version == 4 and address in _THIS_NETWORK else ""


def _embedded(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where it leads to that."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _listed_host(entry: str) -> Listed:
    """``HOST``, ``HOST:PORT``, ``[ADDRESS]`` or ``[ADDRESS]:PORT``."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d+))?", entry)
    host, port = (found[1], int(found[2] or 0)) if found else (entry, 0)
    return Listed(_canonical(host.strip("[]")), port)


def _is_listed(host: str, port: int, listed: Iterable[Listed]) -> bool:
    return any(host == one.host and one.port in (0, port) for one in listed)


def _canonical(host: str) -> str:
    with suppress(ValueError):
        return str(ipaddress.ip_address(host))
    return host.lower().rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _addresses(host: str, port: int) -> list[str]:
    """As the system resolves them."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _bad_url() -> Undelivered:
    return Undelivered("The topic is neither an http(s) URL nor an SNS topic.", permanent=True)


# --- getting it there -----------------------------------------------------------------------------------------------


async def _post(target: Target, addresses: Sequence[str], tls: ssl.SSLContext | None, data: bytes, id: str) -> int:
    """The status of the answer. One limit holds for everything, however slowly the receiver drips."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await _connected(target, addresses, tls)
            try:
                writer.write(_head(target, len(data), id) + data)
                await writer.drain()
                status = await _status(reader)
                with suppress(TimeoutError, OSError):
                    async with asyncio.timeout(_REST_SECONDS):
                        await _skip(reader)
                return status
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise Undelivered(f"The receiver did not answer within {TIMEOUT:g} s.", permanent=False, away=True) from None
    except ssl.SSLError as error:
        raise Undelivered(f"TLS failed: {error.reason or 'handshake'}.", permanent=False, away=True) from error
    except OSError as error:
        raise Undelivered("The receiver could not be reached.", permanent=False, away=True) from error


async def _connected(
    target: Target, addresses: Sequence[str], tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first address that takes one; TLS is spoken with the host, whatever the address."""
    for address in addresses[:-1]:
        with suppress(OSError):
            return await asyncio.open_connection(
                address, target.port, ssl=tls, server_hostname=target.host if tls else None
            )
    return await asyncio.open_connection(
        addresses[-1], target.port, ssl=tls, server_hostname=target.host if tls else None
    )


def _head(target: Target, size: int, id: str) -> bytes:
    """The stable id under two names: the one that receivers of SNS know, and the one others look for."""
    return (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: serving\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {size}\r\n"
        f"X-Amz-Sns-Message-Id: {id}\r\nIdempotency-Key: {id}\r\n\r\n"
    ).encode("ascii")


async def _status(reader: asyncio.StreamReader) -> int:
    """The final status; interim ones (1xx) are passed over."""
    while True:
        try:
            line = await reader.readline()
            found = _STATUS_LINE.match(line)
            if found is None:
                raise Undelivered("The receiver gave no HTTP answer.", permanent=False)
            status = int(found[1])
            if status >= 200:
                return status
            while (await reader.readline()).strip():
                pass
        except ValueError:  # a line without end
            raise Undelivered("The receiver gave no HTTP answer.", permanent=False) from None


async def _skip(reader: asyncio.StreamReader) -> None:
    left = _REST_BYTES
    while left > 0 and (piece := await reader.read(left)):
        left -= len(piece)
