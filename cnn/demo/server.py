"""The demo's HTTP server: a page of three files, and POST /classify.

Other sites must not reach it through the user's browser. If one of their pages posts here, Origin
names that page, and the request is refused. If one of their names resolves to this machine (DNS
rebinding), Host has that name: so Host must be an address, "localhost" or the name that the server
was started with.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ..picture import PictureError

CANVAS_SIDE = 320  # as in page.js; the body is a byte of ink per pixel
CANVAS_BYTES = CANVAS_SIDE**2
# HTML forms cannot send this type, so other sites need a CORS preflight.
BODY_TYPE = "application/octet-stream"
SECONDS = 10.0  # longest silence of a client, and longest time for a body

_FOLDER = Path(__file__).parent
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}

#: Takes a canvas, uint8 (CANVAS_SIDE, CANVAS_SIDE), and returns what is sent as JSON.
Classifier = Callable[[Any], dict[str, Any]]


class RefusedError(Exception):
    """A request is refused; holds the HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


class Server(ThreadingHTTPServer):
    """Serves the page and classifies its drawings, with a thread per client.

    Parameters
    ----------
    classify : callable
        What `classifier` returns.
    host : str
        Address or name to listen on.
    port : int
        0 picks a free one.

    Attributes
    ----------
    url : str
        Where the page is.

    Raises
    ------
    OSError
        If the server cannot listen on the address.
    """

    # Connections that may wait to be accepted; the system turns away the others. socketserver's 5
    # are too few for a class of students.
    request_queue_size = 128

    def __init__(self, classify: Classifier, host: str, port: int) -> None:
        self.classify = classify
        self.host = host
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), _Handler)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of this machine's name, which can be slow."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error in a handler, unless the client closed the connection."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "cnn", ""
    timeout = SECONDS
    # A small body would otherwise wait for the headers' acknowledgement: 40 ms with Linux.
    disable_nagle_algorithm = True
    error_content_type = "text/plain; charset=utf-8"  # for requests that are not HTTP
    error_message_format = "%(code)d %(message)s\n"

    def _answer(self) -> None:
        try:
            self._check_host()
            path = self.path.partition("?")[0]
            if path == "/classify":
                self._check_method("POST")
                answer = self.server.classify(self._canvas())
                self._send(200, "application/json", json.dumps(answer).encode())
            elif path in _FILES:
                self._check_method("GET", "HEAD")
                name, kind = _FILES[path]
                self._send(200, kind, (_FOLDER / name).read_bytes())
            else:
                raise RefusedError(404, f"there is no {path} here")
        except PictureError as error:
            self._refuse(RefusedError(422, str(error)))
        except RefusedError as error:
            self._refuse(error)

    # Known methods get an answer, perhaps 405; the base class answers unknown ones with 501.
    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815
    do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = _answer  # noqa: N815

    def _check_host(self) -> None:
        given = self.headers.get_all("Host", [])
        if len(given) != 1:
            raise RefusedError(400, f"Host: got {len(given)} of this header, expected one")
        name = _host_name(given[0])
        if name not in ("localhost", self.server.host.lower()) and not _is_address(name):
            raise RefusedError(403, f"Host: got {given[0]!r}, expected the address of this server")

    def _check_method(self, *allowed: str) -> None:
        if self.command not in allowed:
            expected = ", ".join(allowed)
            raise RefusedError(405, f"got {self.command}, expected {expected}", Allow=expected)

    def _canvas(self) -> Any:
        """Check the headers, then read and return the body as a canvas."""
        origin = self.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != self.headers["Host"]:
            raise RefusedError(403, f"Origin: got {origin!r}, expected this server's own page")
        kind = self.headers.get("Content-Type", "nothing")
        if kind != BODY_TYPE:
            raise RefusedError(415, f"Content-Type: got {kind}, expected {BODY_TYPE}")
        lengths = self.headers.get_all("Content-Length", [])
        if not lengths or "Transfer-Encoding" in self.headers:
            raise RefusedError(411, "Content-Length: got none, expected the body's length")
        if len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdecimal()):
            raise RefusedError(400, f"Content-Length: got {', '.join(lengths)}, expected a number")
        expected = f"expected {CANVAS_BYTES} bytes, one per pixel"
        # The count of digits first: int() refuses thousands of them.
        if len(lengths[0]) > 9 or int(lengths[0]) > CANVAS_BYTES:
            raise RefusedError(413, f"body: got {lengths[0][:20]} bytes, {expected}")
        body = self._body(int(lengths[0]))
        if len(body) != CANVAS_BYTES:
            raise RefusedError(400, f"body: got {len(body)} bytes, {expected}")
        return np.frombuffer(body, np.uint8).reshape(CANVAS_SIDE, CANVAS_SIDE)

    def _body(self, length: int) -> bytes:
        """Return `length` bytes, or fewer if the client closes the connection."""
        body, end = bytearray(), time.monotonic() + self.timeout
        try:
            while len(body) < length and time.monotonic() < end:
                part = self.rfile.read1(length - len(body))
                if not part:
                    return bytes(body)
                body += part
        except TimeoutError:
            pass
        if len(body) < length:
            raise RefusedError(408, f"body: got {len(body)} of {length} bytes in time")
        return bytes(body)

    def _send(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        fields = {"Content-Type": kind, "Content-Length": str(len(body))} | _HEADERS | headers
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, error: RefusedError) -> None:
        """Send the error and end the connection, since an unread body may still arrive on it."""
        body = json.dumps({"error": str(error)}).encode()
        self._send(error.status, "application/json", body, Connection="close", **error.headers)
        self.close_connection = True
        # Read what arrives: closing with unread bytes resets the connection, and the client may
        # then never see the answer.
        with contextlib.suppress(OSError):  # the client is silent, or gone
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1)
            for _ in range(100):
                if not self.connection.recv(65536):
                    break

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the page itself shows errors."""


def _host_name(host: str) -> str:
    """Return the name or address in a Host header, "" where it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
