"""Asking the network without being held up by it: a call in the background, one connection to see if anybody answers."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Callable
from typing import Generic, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")


class Background(Generic[T]):
    """A call under way in a thread that nobody has to wait for: name resolution, for one, has no timeout of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._value: T | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except Exception as error:  # handed to whoever waits for the result
            self._error = error

    def result(self, seconds: float) -> T:
        """What the call returned or raised, or TimeoutError once the seconds are over."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"no answer within {seconds:g} s")
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set, since neither alive nor failed


def connect(endpoint: str, seconds: float) -> None:
    """Open and close one connection to the endpoint, or to the proxy that stands before it. Raises OSError or ValueError."""
    url = urlsplit(endpoint)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(url.hostname or ""):
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    default_port = {"https": 443, "http": 80}.get(url.scheme, 1080)
    socket.create_connection((url.hostname or "", url.port or default_port), timeout=seconds).close()
