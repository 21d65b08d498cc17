"""One JSON request to a server that may be slow, wrong or hostile: limits of time and size, no redirect, and what is
tried again.

Two failures: `Passing` may pass by itself and is tried again by `persist`; `Lasting` stays until somebody changes something.
Nothing here knows what is asked.
"""

import json
import os
import queue
import random
import threading
import time
import urllib.request
import zlib
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from urllib.parse import quote, urljoin, urlsplit

import httpx

LONGEST_WAIT = 120.0  # seconds; a server that asks for more is not waited for
PASSING_STATUSES = (408, 409, 425, 429)  # and all from 500
_SHORTEST_KEY = 8  # characters; "EMPTY" and the like are no secrets, and a reply may well hold the word
pause = time.sleep


class Passing(RuntimeError):
    """The server gave no answer this time. before, after: a sentence around the number of tries; wait: seconds that the server
    asks for, None where it does not say."""

    def __init__(self, before: str, after: str, wait: float | None = None):
        super().__init__(f"{before} 1 tries{after}")
        self.before, self.after, self.wait = before, after, wait


class Lasting(RuntimeError):
    """Asking again would not help. The message goes on where "the server at …" ends, and says how to fix it."""


@dataclass(frozen=True)
class Answer:
    """What a server sent: its status, its headers, and the whole body, unpacked."""

    status: int
    headers: httpx.Headers
    body: bytes


def persist(attempt, retries: int):
    """(what attempt() returns, failures before it). While it raises `Passing` it is repeated, `retries` times at most: after
    0.5 s doubling to 8 s, or after what the server asks for. Lasting when that does not help, or asks for too long a wait.
    """
    for failures in range(retries + 1):
        try:
            return attempt(), failures
        except Passing as failure:
            last = failure
        if last.wait is not None and last.wait > LONGEST_WAIT:
            raise Lasting(
                f"asks to wait {last.wait:g} s (Retry-After), more than the {LONGEST_WAIT:g} s that are waited; {last.before} "
                f"{failures + 1} tries{last.after}; or run again later."
            )
        if failures < retries:
            backoff = min(8.0, 0.5 * 2**failures) * random.uniform(0.75, 1.0)
            pause(backoff if last.wait is None else last.wait)
    raise Lasting(f"{last.before} {retries + 1} tries{last.after}.")


def asked_wait(headers) -> float | None:
    """Seconds that Retry-After (seconds or a date) or retry-after-ms asks for; None where they are absent or make no sense."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        else:
            seconds = float(headers.get("retry-after", "nan"))
    except ValueError:
        try:
            seconds = parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
        except (ValueError, TypeError, KeyError, OverflowError):
            return None
    return seconds if seconds >= 0 else None  # NaN is not


def scrub(text: str, key: str, name: str, shortest: int = _SHORTEST_KEY) -> str:
    """The text with [name] wherever the key stands, as it is or as JSON or an address would write it."""
    if len(key) < max(shortest, 1):
        return text
    in_json = json.dumps(key)[1:-1]
    forms = {key, in_json, in_json.replace("/", "\\/"), quote(key), quote(key, safe="")}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, f"[{name}]")
    return text


# ------------------------------------------------------------------------------------------------------ addresses


def is_address(url: str) -> bool:
    """Whether a request can be sent there, and nothing in it is secret: no user name, password, query or fragment."""
    if not isinstance(url, str):
        return False
    try:
        parts, _ = urlsplit(url), httpx.URL(url)
        port = parts.port  # ValueError above 65,535
    except (ValueError, httpx.InvalidURL):
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and "@" not in parts.netloc
        and not (parts.query or parts.fragment or " " in url)
        and port != 0
    )


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_variable(url: str) -> str | None:
    """The environment variable whose proxy a request to the address goes through, or None. Its value may hold a password."""
    parts = urlsplit(url)
    if is_loopback(parts.hostname) or urllib.request.proxy_bypass(parts.hostname):
        return None
    names = (f"{parts.scheme}_proxy", "all_proxy")
    found = [case for name in names for case in (name, name.upper()) if os.environ.get(case)]
    if found:
        return found[0]
    return "the system's settings" if parts.scheme in urllib.request.getproxies() else None


# ------------------------------------------------------------------------------------------------------ one request


class Sender:
    """Posts JSON to one address; safe under threads. This machine is never asked through a proxy.

    seconds: for one request from beginning to end, however the server spends them. most_bytes: of an answer, unpacked.
    ValueError for a proxy variable that names no usable proxy.
    """

    def __init__(self, url: str, seconds: float, most_bytes: int):
        self.url, self.seconds, self.most_bytes = url, seconds, most_bytes
        host = urlsplit(url).hostname
        direct = {f"all://[{host}]" if ":" in host else f"all://{host}": None} if is_loopback(host) else {}
        try:
            self._client = httpx.Client(
                timeout=seconds, mounts=direct, limits=httpx.Limits(max_connections=None)
            )
        except (
            ValueError,
            ImportError,
            httpx.InvalidURL,
        ) as error:  # its message may hold the proxy's password
            raise ValueError(
                f"a proxy variable ({proxy_variable(url) or 'such as ALL_PROXY'}) names no proxy that can be used "
                f"({type(error).__name__}); expected http://host:port, or unset it."
            ) from None
        self.close = self._client.close

    def post(self, value, headers: dict[str, str]) -> Answer:
        """The server's answer of any status but a redirect. Passing or Lasting when there is none."""
        content = json.dumps(value).encode()
        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip", **headers}
        try:
            answer = _within(self.seconds, self._exchange, content, headers)
        except (TimeoutError, httpx.TimeoutException):
            raise Passing(
                f"did not answer within {self.seconds:g} s in", "; raise timeout, or see what it is doing"
            ) from None
        except (httpx.HTTPError, OSError) as error:
            raise Passing(
                "could not be reached, or hung up, in",
                f" ({type(error).__name__}: {str(error)[:200]}); start it, or fix base_url",
            ) from None
        if 300 <= answer.status < 400:
            raise Lasting(
                f"answers {answer.status}, a redirect to {self._target(answer)}; nothing was sent there. Set base_url to the "
                "address that answers itself."
            )
        return answer

    def _target(self, answer: Answer) -> str:
        """Where a redirect points, without what may be secret."""
        try:
            place = urlsplit(urljoin(self.url, answer.headers.get("location", "")))
        except ValueError:
            return "no address"
        return f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path}"

    def _exchange(self, content, headers) -> Answer:
        end = time.monotonic() + self.seconds
        with self._client.stream("POST", self.url, content=content, headers=headers) as response:
            body = bytearray()
            for part in _unpacked(response):
                body += part
                if len(body) > self.most_bytes:
                    raise Lasting(
                        f"answered with more than {self.most_bytes} bytes, unpacked; fix base_url, or raise max_reply_bytes."
                    )
                if time.monotonic() > end:
                    raise TimeoutError
        return Answer(response.status_code, response.headers, bytes(body))


def _unpacked(response):
    """The body in parts of at most 64 kB, so that a small packed answer cannot fill the memory."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        yield from response.iter_raw()
        return
    if encoding not in ("gzip", "deflate"):
        raise Lasting(
            f"packs its answers as {encoding[:40]!r}, which was not asked for; expected gzip or nothing."
        )
    unpack = zlib.decompressobj(wbits=47)  # gzip or zlib, as the first bytes say
    try:
        for part in response.iter_raw():
            while part:
                yield unpack.decompress(part, 65_536)
                part = unpack.unconsumed_tail
        yield unpack.flush()
        if not unpack.eof:
            raise httpx.RemoteProtocolError("the packed answer ends early")
    except zlib.error:
        raise Lasting(
            f"answered with something that is not {encoding}, though it says so; fix the server."
        ) from None


def _within(seconds: float, function, *arguments):
    """What the function returns or raises; TimeoutError after so many seconds, whatever it waits for: a socket's own limit
    starts again with each byte, and looking up a name has none. The thread that is left alone ends with its connection.
    """
    outcome = queue.SimpleQueue()

    def run():
        try:
            outcome.put((function(*arguments), None))
        except BaseException as error:
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return value
