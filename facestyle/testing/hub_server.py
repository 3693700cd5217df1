"""A Hugging Face Hub on this machine: for tests, and to try out a push before the real one.

It speaks the part of the Hub's API that huggingface_hub 2 uses for repositories, over a real socket: accounts and
private repositories, uploads (LFS for large files) and commits, branches, tags and pull requests, downloads with
ranges, Spaces. All is kept in memory and gone when it stops. Clients need ``HF_HUB_DISABLE_XET=1``, unless the server
is given a folder for Xet storage.

    python -m facestyle.testing.hub_server --port 8899 --token hf_local
"""

from __future__ import annotations

import argparse
import logging
import re
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from facestyle.testing import hub_changes, hub_reads
from facestyle.testing.hub_api import Account, Answer, Hub, Refused, Request
from facestyle.testing.hub_repos import MAIN, Repo
from facestyle.testing.hub_xet import XetStore

__all__ = ["HubServer", "main"]

_log = logging.getLogger(__name__)

_ROUTES = [
    (method, re.compile(pattern), function)
    for method, pattern, function in hub_changes.ROUTES + hub_reads.ROUTES
]
_PIECE = 1 << 16
"""Bytes of a body read at a time."""


@dataclass
class _Fault:
    """What goes wrong with the next requests whose method and path fit.

    Attributes:
        times: how many requests it still befalls.
        status: answered instead of what the Hub has to say.
        request_bytes: of the request's body; the connection breaks, without an answer, when they have come.
        answer_bytes: of the answer's body; the connection breaks when they have gone.
    """

    method: str
    path: re.Pattern[str]
    times: int
    status: int | None = None
    request_bytes: int | None = None
    answer_bytes: int | None = None


class HubServer:
    """A running local Hub; a context manager that starts and stops it.

    Example:
        >>> with HubServer(user="ada") as hub:
        ...     sha = hub.publish("ada/style", {"config.json": b"{}"})
        ...     hub.files("ada/style", revision=sha)["config.json"]
        b'{}'

    Attributes:
        endpoint: the address for clients' ``HF_ENDPOINT``.
        user: name of the first user.
        token: the first user's token, which may write.
        requests: method and path, without query, of every request so far.
        failures: tracebacks of the server's own errors, which are answered with status 500.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        user: str = "ada",
        token: str = "hf_local",
        lfs_threshold: int = 10_000,
        xet_folder: str | Path | None = None,
    ) -> None:
        """A server on this port of 127.0.0.1 (0 takes a free one) that does not answer yet.

        Args:
            port: where to listen.
            user: name of the first user.
            token: the first user's token.
            lfs_threshold: files of more bytes than this are uploaded as LFS files, others within the commit.
            xet_folder: LFS files go here, in chunks, from clients on this machine that speak Xet.
        """
        self.user = user
        self.token = token
        self.requests: list[tuple[str, str]] = []
        self.failures: list[str] = []
        xet = None if xet_folder is None else XetStore(xet_folder)
        self._hub = Hub(lfs_threshold=lfs_threshold, xet=xet)
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []
        self._listener = _Listener(self, port)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,))
        self.endpoint = self._hub.endpoint = f"http://127.0.0.1:{self._listener.server_port}"
        self.add_user(user, token)

    def start(self) -> None:
        """Answer requests from now on, in threads of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Close all connections and the port; what was stored can still be looked at."""
        if self._thread.is_alive():
            self._listener.shutdown()
            self._thread.join()
        self._listener.close_connections()
        self._listener.server_close()

    def __enter__(self) -> HubServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def add_user(self, name: str, token: str, *, can_write: bool = True) -> None:
        """Accept one more token, which stands for this user."""
        self._hub.accounts[token] = Account(name, can_write)

    def repo(self, id: str, *, kind: str = "model") -> Repo:
        """A repository, to look at its commits and refs or to change who may see it.

        Raises:
            KeyError: there is none.
        """
        return self._hub.repos[kind, id]

    def files(self, id: str, *, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        """Path and content of every file at a branch, tag, pull request's ref or commit.

        Raises:
            KeyError: there is no such repository.
            LookupError: there is no such revision.
        """
        commit = self.repo(id, kind=kind).find(revision)
        if commit is None:
            raise LookupError(f"{id} has no revision {revision}")
        return {path: file.content for path, file in commit.files.items()}

    def publish(
        self,
        id: str,
        files: Mapping[str, bytes],
        *,
        kind: str = "model",
        is_private: bool = False,
        tag: str | None = None,
    ) -> str:
        """Commit these files and no others to main, in a new repository if there is none; the commit's name.

        The quick way to a repository that a test only reads.
        """
        with self._lock:
            if (kind, id) not in self._hub.repos:
                self._hub.repos[kind, id] = Repo(kind, id, is_private=is_private)
            repo = self._hub.repos[kind, id]
            stored = {path: self._hub.stored(content) for path, content in files.items()}
            commit = repo.commit(MAIN, stored, title="published")
            if tag:
                repo.refs[f"refs/tags/{tag}"] = commit
            return commit.sha

    def break_uploads(self, *, after_bytes: int, times: int = 1) -> None:
        """Break the connection of the next LFS uploads once this many bytes have come.

        The client tries six times, one to eight seconds apart, before it gives up.
        """
        fault = _Fault("PUT", re.compile(r"/lfs/"), times, request_bytes=after_bytes)
        self._faults.append(fault)

    def break_downloads(self, *, after_bytes: int, times: int = 1) -> None:
        """Break the connection of the next downloads of a file once this many bytes have gone."""
        fault = _Fault("GET", re.compile(r"/resolve/"), times, answer_bytes=after_bytes)
        self._faults.append(fault)

    def fail_requests(self, method: str, path: str, *, status: int, times: int = 1) -> None:
        """Answer the next requests whose path holds this regular expression with a status of 400 or more."""
        self._faults.append(_Fault(method, re.compile(path), times, status=status))

    def drop_requests(self, method: str, path: str, *, times: int = 1) -> None:
        """Break the connection in place of an answer to the next requests whose path holds this regular expression."""
        fault = _Fault(method, re.compile(path), times, request_bytes=sys.maxsize)
        self._faults.append(fault)

    def _fault(self, method: str, path: str) -> _Fault | None:
        """What is to go wrong with this request."""
        with self._lock:
            for fault in self._faults:
                if fault.times and fault.method == method and fault.path.search(path):
                    fault.times -= 1
                    return fault
        return None

    def _answer(self, request: Request) -> Answer:
        """What the Hub has to say; one request at a time."""
        method = "GET" if request.method == "HEAD" else request.method
        with self._lock:
            try:
                request.account = self._hub.account(request.headers.get("authorization"))
                for route_method, pattern, function in _ROUTES:
                    if method == route_method and (found := pattern.fullmatch(request.path)):
                        groups = found.groupdict().items()
                        request.parts = {key: unquote(text) for key, text in groups if text}
                        return function(self._hub, request)
                raise Refused(404, f"no such page: {request.method} {request.path}")
            except Refused as refusal:
                return refusal.answer
            except Exception:
                self.failures.append(traceback.format_exc())
                _log.exception("%s %s", request.method, request.path)
                return Answer(status=500)


class _Listener(ThreadingHTTPServer):
    """The socket; joins its threads when closed."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, hub_server: HubServer, port: int) -> None:
        self.hub_server = hub_server
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """End those that clients keep open."""
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no error of ours."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            self.hub_server.failures.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, has them answered, breaks what is to be broken."""

    server: _Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        _log.info(format, *args)

    def _respond(self) -> None:
        hub_server, address = self.server.hub_server, urlsplit(self.path)
        hub_server.requests.append((self.command, address.path))
        fault = hub_server._fault(self.command, address.path)
        body = self._body(fault.request_bytes if fault else None)
        if fault and fault.request_bytes is not None:
            self.close_connection = True
            return
        headers = {name.lower(): text for name, text in self.headers.items()}
        request = Request(self.command, address.path, parse_qs(address.query), headers, body)
        status = fault.status if fault else None
        answer = Answer(status=status) if status else hub_server._answer(request)
        self._send(answer, fault.answer_bytes if fault else None)

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = _respond

    def _body(self, stop_after: int | None) -> bytes:
        """The request's body, or its beginning if it is long enough to be stopped."""
        body = bytearray()
        for piece in self._pieces():
            body += piece
            if stop_after is not None and len(body) >= stop_after:
                break
        return bytes(body)

    def _pieces(self) -> Iterator[bytes]:
        """The request's body, as it comes."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self._line().split(b";")[0], 16):
                yield self.rfile.read(size)
                self._line()
            self._line()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read(min(_PIECE, left))
            if not piece:
                raise ConnectionAbortedError("the client is gone")
            left -= len(piece)
            yield piece

    def _line(self) -> bytes:
        """The next line of a body that comes in chunks."""
        line = self.rfile.readline()
        if not line:
            raise ConnectionAbortedError("the client is gone")
        return line

    def _send(self, answer: Answer, stop_after: int | None) -> None:
        """The answer, of whose body only so many bytes go out before the connection breaks."""
        self.send_response(answer.status)
        for name, text in answer.headers.items():
            self.send_header(name, re.sub(r"[^\x20-\xff]", "?", text))
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[:stop_after])
        self.wfile.flush()
        if stop_after is not None:
            self.close_connection = True


def main(argv: Sequence[str] | None = None) -> int:
    """Run a local Hub until Ctrl-C; its address is the first line on standard output."""
    parser = argparse.ArgumentParser(
        prog="python -m facestyle.testing.hub_server",
        description="a Hugging Face Hub on this machine",
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--user", default="ada", help="name of the only user; default: ada")
    parser.add_argument("--token", default="hf_local", help="the user's token; default: hf_local")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with (
        suppress(KeyboardInterrupt),
        HubServer(port=args.port, user=args.user, token=args.token) as hub,
    ):
        print(hub.endpoint, flush=True)
        print(
            "For a client in another shell:\n"
            f"  export HF_ENDPOINT={hub.endpoint} HF_TOKEN={hub.token} HF_HUB_DISABLE_XET=1\n"
            f"Repositories are {hub.user}/NAME; all is gone when this stops (Ctrl-C).",
            file=sys.stderr,
        )
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
