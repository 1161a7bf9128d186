import asyncio
import json
import os
import time

import pytest

from qdformer.demo import web_server
from qdformer.demo.web_server import KEPT, OnlyNeeded

UPLOAD, PREDICT = "/gradio_api/upload", "/gradio_api/queue/join"


@pytest.fixture
def ask(tmp_path):
    """Asks the page through the middleware: status, and what the page itself was told."""

    def request(path, body=b"", pieces=1, **headers):
        told, status = [], []

        async def app(scope, receive, send):
            message = await receive()
            told.append(message["body"])
            await send({"type": "http.response.start", "status": 200, "headers": []})

        size = -(-len(body) // pieces) or 1
        parts = [body[k : k + size] for k in range(0, len(body), size)] or [b""]

        async def receive():
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message):
            status.append(message.get("status"))

        named = {"host": "127.0.0.1:7860", **headers}
        scope = {"type": "http", "path": path}
        scope["headers"] = [
            (k.replace("_", "-").encode(), v.encode("latin1")) for k, v in named.items()
        ]
        asyncio.run(OnlyNeeded(app, tmp_path)(scope, receive, send))
        return status[0], told

    return request


def test_what_the_page_asks_for_arrives_whole(ask):
    file = {"path": "/tmp/qdformer_web_x/served/a.mp4", "url": "http://127.0.0.1:7860/a.mp4"}
    body = json.dumps({"data": [file, None, 3, "http://is text"]}).encode()
    for pieces in (1, 7):
        assert ask(PREDICT, body, pieces) == (200, [body])
    assert ask("/")[0] == ask(UPLOAD, content_length="5")[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [{"path": "http://10.0.0.1/a.mp4"}]}',
        b'{"data": [{"video": {"path": "https://a.b/c"}}]}',
        b'{"data": [[{"path": "file:///etc/passwd"}]]}',
        b"no json",
        b"[" * 100_000,
        b"x" * 2_000_000,
    ],
)
def test_no_file_is_fetched_from_elsewhere(ask, body):
    assert ask(PREDICT, body) == (403, [])


@pytest.mark.parametrize(
    "path", ["/gradio_api/file=http://127.0.0.1/", "/assets/http://a.b/", "/docs", "/monitoring"]
)
def test_other_paths_are_unknown(ask, path):
    assert ask(path) == (404, [])


def test_other_hosts_and_pages_are_refused(ask):
    assert ask("/", host="evil.example") == (403, [])
    assert ask("/", origin="http://evil.example") == (403, [])


def test_uploads_are_bounded_and_swept_by_age(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(web_server, "MAX_UPLOADED", 100)
    files = [tmp_path / name for name in ("served/new.mp4", "tmp123", "examples/a.mp4")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * 30)
    assert ask(UPLOAD) == (411, [])
    assert ask(UPLOAD, content_length="1", transfer_encoding="chunked") == (411, [])
    assert ask(UPLOAD, content_length="11") == (507, [])
    assert ask(UPLOAD, content_length="10")[0] == 200
    for file in files:  # an unfinished upload, too, but the examples stay
        os.utime(file, (time.time() - KEPT - 60,) * 2)
    assert ask(UPLOAD, content_length="70")[0] == 200
    assert [file.exists() for file in files] == [False, False, True]


def test_uploads_that_still_arrive_count(tmp_path, monkeypatch):
    monkeypatch.setattr(web_server, "MAX_UPLOADED", 100)
    status = []

    async def send(message):
        status.append(message.get("status"))

    async def five_at_once():
        arrived = asyncio.Event()

        async def app(scope, receive, send):
            await arrived.wait()
            await send({"status": 200})

        page = OnlyNeeded(app, tmp_path)
        headers = [(b"host", b"localhost"), (b"content-length", b"40")]
        scope = {"type": "http", "path": UPLOAD, "headers": headers}
        asked = [asyncio.create_task(page(scope, None, send)) for _ in range(5)]
        await asyncio.sleep(0)
        arrived.set()
        await asyncio.gather(*asked)
        await page(scope, None, send)  # there is room again

    asyncio.run(five_at_once())
    assert [code for code in status if code] == [507, 507, 507, 200, 200, 200]


def test_headers_need_not_be_utf8(ask):
    assert ask("/", user_agent="caf\xe9")[0] == 200
