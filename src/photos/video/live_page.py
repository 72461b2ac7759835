"""A page on this machine alone that shows what the video demo draws, as it draws it (`--video camera:0`)."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

from src.photos.video.sources import Newest, Source

logger = logging.getLogger(__name__)

_HOST, _BOUNDARY, _QUALITY = "127.0.0.1", "handid-frame", 85
#: Seconds after which a client that waits for a frame looks whether there still is a stream.
_PATIENCE = 0.5
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Hands, live</title><style>
body { margin: 0; background: #15181c; color: #dce0e4; font: 15px/1.5 "DejaVu Sans", sans-serif; text-align: center }
img { max-width: 96vw; max-height: 82vh; margin: 16px 0 8px; border-radius: 6px }
#words { min-height: 3em; white-space: pre-line }
</style></head><body><img src="stream" alt="the camera's picture with the hands drawn in"><div id="words"></div><script>
const words = document.getElementById("words");
async function look() {
  try {
    const now = await (await fetch("status.json")).json();
    words.textContent = `${now.seconds.toFixed(1)} s, frame ${now.frames}; passed over: ${now.dropped}`;
    setTimeout(look, 500);
  } catch { words.textContent += "\\nThe stream has ended."; }
}
look();
</script></body></html>
"""


class LivePage:
    """Shows the newest picture to whoever looks at it.

    Args:
        port: on the loopback interface; 0: a free one.
        dropped: tells how many frames were passed over so far.

    Attributes:
        url: where it is.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, port: int = 0, dropped: Callable[[], int] = lambda: 0) -> None:
        self._dropped = dropped
        try:
            self._server = ThreadingHTTPServer((_HOST, port), _Handler)
        except OSError as error:
            raise OSError(f"--port {port}: cannot be used on {_HOST} ({error.strerror}); leave it out") from error
        self._server.daemon_threads = True
        self._server.page = self  # type: ignore[attr-defined]
        self.port = int(self._server.server_address[1])
        self.url = f"http://{_HOST}:{self.port}/"
        self._new, self._count, self._picture, self._open = threading.Condition(), 0, b"", True
        self._status: dict[str, Any] = {"words": [], "seconds": 0.0, "frames": 0, "dropped": 0}
        threading.Thread(target=self._server.serve_forever, name="page", daemon=True).start()

    def show(self, image: np.ndarray, words: list[str], seconds: float) -> None:
        """The next picture (H,W,3) uint8 RGB, taken at ``seconds``, and what is known of it."""
        quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1].tobytes()
        with self._new:
            self._count, self._picture = self._count + 1, data
            self._status = {"words": words, "seconds": seconds, "frames": self._count, "dropped": self._dropped()}
            self._new.notify_all()

    def newest(self, after: int = 0) -> tuple[int, bytes] | None:
        """The first picture later than number ``after``, as soon as there is one; None: none comes any more."""
        with self._new:
            while self._open and self._count <= after:
                self._new.wait(_PATIENCE)
            return (self._count, self._picture) if self._count > after else None

    def status(self) -> bytes:
        """What is said of the newest picture, JSON."""
        with self._new:
            return json.dumps(self._status).encode()

    def close(self) -> None:
        """End the stream of everybody who looks."""
        with self._new:
            self._open = False
            self._new.notify_all()
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def live_page(port: int, source: Source) -> Iterator[LivePage | None]:
    """A `LivePage` of a live source while the block runs; of another None."""
    frames = source.frames
    if not isinstance(frames, Newest):
        yield None
        return
    page = LivePage(port, lambda: frames.dropped)
    logger.info("look at %s; Ctrl-C ends", page.url)
    try:
        yield page
    finally:
        page.close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # noqa: N802 (the standard library's name)
        page: LivePage = self.server.page  # type: ignore[attr-defined]
        # A page of the internet must not reach this one through a name that leads here.
        if self.headers.get("Host") not in (f"{_HOST}:{page.port}", f"localhost:{page.port}"):
            self.send_error(403)
        elif self.path == "/":
            self._send("text/html; charset=utf-8", _PAGE.encode())
        elif self.path == "/status.json":
            self._send("application/json", page.status())
        elif self.path == "/stream":
            self._stream(page)
        else:
            self.send_error(404)

    def _send(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(data))), ("Cache-Control", "no-store")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, page: LivePage) -> None:
        """Every new picture in place of the one before it, as far as the client keeps up."""
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        number = 0
        with contextlib.suppress(ConnectionError):  # who goes away may
            while (found := page.newest(number)) is not None:
                number, data = found
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")

    def log_message(self, format: str, *args: object) -> None:
        logger.debug(format, *args)
