"""A wire to slurmrestd that can lose the answer to a submission: Slurm has the job, and Haein never hears of it."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Relay(ThreadingHTTPServer):
    """Passes everything on to the slurmrestd at `url`; the next `to_lose` answers to submissions do not come back."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Wire)
        self.target = urlsplit(url).netloc
        self.to_lose = 0
        self.lost = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Wire(BaseHTTPRequestHandler):
    server: Relay
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPConnection(self.server.target, timeout=30)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            text = answer.read()
        finally:
            upstream.close()
        if self.path.endswith("/job/submit") and self.server.to_lose:
            self.server.to_lose -= 1
            self.server.lost += 1
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = _pass_on  # noqa: N815 - named by the library

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""
