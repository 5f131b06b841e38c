"""A web server on this machine that sends files as those of published weights are sent, and fails as they do."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

MODIFIED = "Wed, 21 Oct 2015 07:28:00 GMT"


@dataclass
class FileServer:
    """Files by name, and how the server behaves.

    ``break_after`` lists after how many bytes the connection breaks, an entry a request; ``requests`` collects name and
    Range header of what was asked for.
    """

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    modified: str = MODIFIED
    break_after: list[int] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"


def handler_of(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, wanted = self.path.removeprefix("/"), self.headers["Range"]
            server.requests.append((name, wanted))
            if name not in server.files:
                self.send_error(404)
                return
            content = server.files[name]
            is_same = self.headers["If-Range"] in (None, server.modified)
            first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and is_same else 0
            if first and first >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(content) - first))
            self.send_header("Last-Modified", server.modified)
            self.end_headers()
            rest = content[first:]
            self.wfile.write(rest[: server.break_after.pop(0)] if server.break_after else rest)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[FileServer]:
    """Run a server as long as the block does."""
    state = FileServer()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state)) as server:
        state.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()
