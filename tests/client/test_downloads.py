"""Downloads through a server that breaks off, lies, or lacks ranges."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.client.address import find_address
from service.client.downloads import Download
from service.client.errors import DigestMismatchError, UnreachableError
from service.client.transport import Transport

DATA = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(DATA).hexdigest()


class FaultyServer(ThreadingHTTPServer):
    """Serves DATA; `cut` says after how many bytes of an answer the connection breaks, None for never."""

    daemon_threads = True

    def __init__(self, cut: Callable[[int], int | None], *, ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), FaultyHandler)
        self.cut = cut
        self.has_ranges = ranges
        self.ranges_asked: list[str | None] = []


class FaultyHandler(BaseHTTPRequestHandler):
    """Answers GET as the export routes do: strong ETag, Range, If-Range."""

    server: FaultyServer

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges_asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.has_ranges else 0
        if start >= len(DATA):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(DATA)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{SHA256}"')
        self.send_header("Content-Length", str(len(DATA) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        self.end_headers()
        cut = self.server.cut(len(self.server.ranges_asked))
        self.wfile.write(DATA[start:] if cut is None else DATA[start : start + cut])
        self.close_connection = True

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serve(cut: Callable[[int], int | None], *, ranges: bool = True) -> Iterator[tuple[FaultyServer, Transport]]:
    server = FaultyServer(cut, ranges=ranges)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    transport = Transport(find_address(f"http://127.0.0.1:{server.server_port}", environment={}), 10.0)
    try:
        yield server, transport
    finally:
        transport.close()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    target = tmp_path / "rows.parquet"
    with serve(lambda request: 300_000 if request < 3 else None) as (server, transport):
        Download(transport, "/file", target, SHA256).run()
    assert target.read_bytes() == DATA
    assert server.ranges_asked == [None, "bytes=300000-", "bytes=600000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_what_has_arrived_is_kept_when_the_server_stays_away_and_used_the_next_time(tmp_path: Path) -> None:
    target = tmp_path / "rows.parquet"
    with serve(lambda request: 1000 if request == 1 else 0) as (_, transport), pytest.raises(UnreachableError):
        Download(transport, "/file", target, SHA256).run()
    assert not target.exists()
    (part,) = tmp_path.iterdir()
    assert part.read_bytes() == DATA[:1000]
    with serve(lambda _request: None) as (server, transport):
        Download(transport, "/file", target, SHA256).run()
    assert server.ranges_asked == ["bytes=1000-"]
    assert target.read_bytes() == DATA


def test_a_server_without_ranges_sends_everything_again(tmp_path: Path) -> None:
    target = tmp_path / "rows.parquet"
    with serve(lambda request: 500 if request == 1 else None, ranges=False) as (_, transport):
        Download(transport, "/file", target, SHA256).run()
    assert target.read_bytes() == DATA


def test_a_part_that_is_whole_already_is_put_in_place(tmp_path: Path) -> None:
    target = tmp_path / "rows.parquet"
    (tmp_path / f"rows.parquet.{SHA256[:16]}.part").write_bytes(DATA)
    with serve(lambda _request: None) as (_, transport):
        Download(transport, "/file", target, SHA256).run()
    assert target.read_bytes() == DATA


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path) -> None:
    target = tmp_path / "rows.parquet"
    (tmp_path / f"rows.parquet.{SHA256[:16]}.part").write_bytes(DATA + b"more")
    with serve(lambda _request: None) as (_, transport):
        Download(transport, "/file", target, SHA256).run()
    assert target.read_bytes() == DATA


def test_other_bytes_than_announced_are_refused_and_removed(tmp_path: Path) -> None:
    wanted = hashlib.sha256(b"something else").hexdigest()
    message = rf"sha256 {SHA256[:12]}.*{wanted[:12]}"
    with serve(lambda _request: None) as (_, transport), pytest.raises(DigestMismatchError, match=message):
        Download(transport, "/file", tmp_path / "rows.parquet", wanted).run()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_right_already_is_not_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "rows.parquet"
    target.write_bytes(DATA)
    with serve(lambda _request: None) as (server, transport):
        Download(transport, "/file", target, SHA256).run()
    assert server.ranges_asked == []
