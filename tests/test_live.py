"""Live videos (``--video camera:...``): the newest frame, smoothed, on a page of this machine; files that are whole."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from photo_cases import Fixed, arguments
from test_video_files import write_clip

from src.photos.api import PhotoEstimator
from src.photos.video import run_video
from src.photos.video.live_page import LivePage
from src.photos.video.sources import Newest, open_source
from utils.video_files import Frame, open_video


def frames(count: int, step: float = 0.0) -> Iterator[Frame]:
    for number in range(count):
        time.sleep(step)
        yield Frame(np.full((4, 4, 3), number, np.uint8), float(number))


def test_whoever_is_slow_gets_the_newest_frame() -> None:
    made, given = 0, []

    def camera() -> Iterator[Frame]:
        nonlocal made
        for frame in frames(60, 0.002):
            made += 1
            yield frame

    source = Newest(camera())
    for frame in source:
        given.append(int(frame.image[0, 0, 0]))
        begin = made
        while made < min(begin + 6, 60):  # so many come while this one is worked on
            time.sleep(0.001)
    assert given == sorted(set(given)) and given[-1] == 59
    assert len(given) <= 13 and source.dropped == 60 - len(given)


def test_a_camera_is_let_go_and_its_errors_are_told() -> None:
    closed = threading.Event()

    def camera() -> Iterator[Frame]:
        try:
            yield from frames(10**6)
        finally:
            closed.set()

    for _ in Newest(camera()):
        break
    assert closed.wait(5)

    def broken() -> Iterator[Frame]:
        yield from frames(1)
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        list(Newest(broken()))


def test_a_file_is_played_in_its_own_time(tmp_path: Path) -> None:
    source = open_source(f"camera:{write_clip(tmp_path / 'a.mp4', 12)}")  # 30 frames a second
    begin = time.monotonic()
    seconds = [frame.seconds for frame in source.frames]
    assert source.is_live and source.name == "a" and seconds[-1] == pytest.approx(11 / 30, abs=0.01)
    assert time.monotonic() - begin >= 11 / 30 - 0.01
    with pytest.raises(ValueError, match="no picture comes from a camera of that number"):
        open_source("camera:97")
    with pytest.raises(FileNotFoundError):
        open_source("camera:nothing.mp4")
    for words in (("--video", "a.mp4", "--port", "8000"), ("--video", "camera:0", "--port", "70000")):
        with pytest.raises(SystemExit):
            arguments(*words)


def get(url: str, host: str | None = None) -> bytes:
    request = urllib.request.Request(url, headers={} if host is None else {"Host": host})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


def test_the_page_shows_the_stream_to_this_machine_only() -> None:
    page = LivePage(dropped=lambda: 3)
    try:
        address, port = page._server.server_address
        assert address == "127.0.0.1" and page.url == f"http://127.0.0.1:{port}/"
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[..., 0] = 200
        page.show(picture, ["a right hand"], 1.5)
        assert b'src="stream"' in get(page.url)
        expected = {"words": ["a right hand"], "seconds": 1.5, "frames": 1, "dropped": 3}
        assert json.loads(get(page.url + "status.json")) == expected
        with urllib.request.urlopen(page.url + "stream", timeout=10) as stream:
            assert stream.headers.get_content_type() == "multipart/x-mixed-replace"
            for blue in (0, 250):
                assert stream.readline().strip() == b"--" + stream.headers.get_param("boundary").encode()
                head = dict(line.split(": ") for line in (stream.readline().decode().strip() for _ in range(2)))
                assert stream.readline() == b"\r\n"
                data = stream.read(int(head["Content-Length"]))
                seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                assert stream.readline() == b"\r\n" and seen.shape == (48, 64, 3)
                assert np.abs(seen[20, 20].astype(int) - [blue, 0, 200]).max() < 12  # OpenCV: blue first
                picture[..., 2] = 250
                page.show(picture, [], 2.0)
        for url, host in ((page.url, "evil.example:80"), (page.url + "../etc/passwd", None)):
            with pytest.raises(urllib.error.HTTPError):
                get(url, host)
        with pytest.raises(OSError, match=f"--port {port}: cannot be used"):
            LivePage(port)
    finally:
        page.close()
    with pytest.raises(urllib.error.URLError):
        get(page.url)


@pytest.mark.parametrize("stopped", [False, True])
def test_the_demo_of_a_camera(stopped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is there while it runs; at its end, or by Ctrl-C, the files are whole and belong together."""
    seen: list[dict] = []

    def look(call: int) -> None:
        time.sleep(0.25)
        if call > 1:
            seen.append(json.loads(get(f"http://127.0.0.1:{port}/status.json")))
        if stopped and call == 2:
            raise KeyboardInterrupt

    probe = LivePage()
    port = probe.port
    probe.close()
    monkeypatch.setattr(run_video, "open_tools", lambda _: PhotoEstimator(Fixed(look), bbox=(10, 10, 50, 40)))
    clip, output = write_clip(tmp_path / "a.mp4", 12, fps=10.0), tmp_path / "out"
    words = ("--video", f"camera:{clip}", "--port", str(port), "--output", str(output), "--glb", "animated")
    if stopped:
        with pytest.raises(KeyboardInterrupt):
            run_video.video_demo(arguments(*words))
    else:
        run_video.video_demo(arguments(*words))
    _, *records = [json.loads(line) for line in (output / "a_frames.jsonl").read_text().splitlines()]
    assert all(record["status"] == "ok" and record["over_time"] == "lag" for record in records)
    times = [record["seconds"] for record in records]
    assert times == sorted(set(times)) and (len(records) == 1 if stopped else 2 <= len(records) < 12)
    assert seen[-1]["frames"] == len(records) - (not stopped) and "right hand" in " ".join(seen[-1]["words"])
    assert stopped or (seen[-1]["dropped"] > 0 and times[-1] == pytest.approx(1.1, abs=0.01))
    shown = [frame.image for frame in open_video(output / "a_annotated.mp4")[1]]
    assert len(shown) >= len(records) and (output / "a_hands.glb").is_file()
