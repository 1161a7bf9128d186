"""Serves the web page: on this machine alone, out of one temporary folder."""

import contextlib
import ipaddress
import json
import logging
import os
import re
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from qdformer.errors import InputError
from qdformer.predictor import AudioVisualPredictor

logger = logging.getLogger(__name__)

MAX_WAITING = 8
"""Jobs in the queue; whoever comes then is asked to come back."""

MAX_SESSIONS = 16
"""Visitors whose results are kept; the one that was away the longest loses its own."""

KEPT, LOOKED_AFTER = 3600, 600
"""Seconds that files and results are kept, and between two looks for older ones."""

MAX_UPLOADED = 2 * 2**30
"""Bytes of uploads and results that are kept at once."""

_MAX_BODY = 2**20

# What the page asks its server for. Gradio answers much more, some of it by asking other hosts.
_NEEDED = re.compile(
    r"/(config|theme\.css|favicon\.ico)?"
    r"|/(assets|static)/.*"
    r"|/gradio_api/(startup-events|upload|upload_progress|run/predict|reset|cancel)"
    r"|/gradio_api/(queue/(join|data)|heartbeat/\w+|file=/.*)"
)


class OnlyNeeded:
    """ASGI middleware that knows the page's own requests, from its own pages, and no other.

    A page of somebody else's, or a name that somebody else gave this machine's address, cannot use
    it through a visitor's browser: requests must be for an address in numbers, for ``localhost`` or
    for one of ``hosts``, and come from a page of the same. No request makes the server ask another
    one, and uploads take no more of the disk than ``MAX_UPLOADED`` bytes.
    """

    def __init__(self, app: Callable, folder: Path, hosts: Sequence[str] = ()):
        self._app, self._folder, self._hosts = app, folder, {"localhost", *hosts}
        self._under_way = 0  # bytes of uploads that are still arriving

    async def __call__(self, scope, receive, send) -> None:
        """As ASGI has it."""
        if scope["type"] == "http":
            refused = self._refusal(scope)
            if not refused and scope["path"].endswith(("predict", "join")):
                body = await _read_body(receive)
                if body is None or _names_address(body):
                    refused = 403, b"Only files that were uploaded here can be used."
                receive = _replay(body or b"", receive)
            if refused:
                status, text = refused
                await send({"type": "http.response.start", "status": status, "headers": []})
                await send({"type": "http.response.body", "body": text})
                return
            if scope["path"].endswith("upload"):
                length = int(dict(scope["headers"])[b"content-length"])
                self._under_way += length
                try:
                    await self._app(scope, receive, send)
                finally:
                    self._under_way -= length
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope) -> tuple[int, bytes] | None:
        headers = {
            name.decode("latin1").lower(): value.decode("latin1")
            for name, value in scope["headers"]
        }
        host = _host_name(headers.get("host", ""))
        if not _NEEDED.fullmatch(scope["path"]) or "://" in scope["path"]:
            return 404, b"Not here."
        if not (host in self._hosts or _is_address(host)):
            return 403, b"This page is not served under that name; see --allow-host."
        if "origin" in headers and _host_name(headers["origin"]) != host:
            return 403, b"Other pages may not use this one."
        if scope["path"].endswith("upload"):
            length = headers.get("content-length", "")
            # In pieces of any number, an upload would be as long as it likes.
            if not length.isdecimal() or "transfer-encoding" in headers:
                return 411, b"An upload must say how long it is."
            if _sweep(self._folder) + self._under_way + int(length) > MAX_UPLOADED:
                return 507, b"There is no room for more videos at the moment; come back later."
        return None


def _sweep(folder: Path) -> int:
    """Remove files that are older than ``KEPT``; returns the bytes of the others."""
    total, now = 0, time.time()
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            status = file.lstat()
            if stat.S_ISREG(status.st_mode):
                if now - status.st_mtime > KEPT and "examples" not in file.parts:
                    file.unlink()
                else:
                    total += status.st_size
    return total


async def _read_body(receive: Callable) -> bytes | None:
    """None for one that is larger than what the page asks for."""
    body, more = b"", True
    while more and len(body) <= _MAX_BODY:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return None if more else body


def _replay(body: bytes, receive: Callable) -> Callable:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def read_again() -> dict:
        return messages.pop() if messages else await receive()

    return read_again


def _names_address(body: bytes) -> bool:
    """Whether a file is to be fetched from somewhere: Gradio would do so."""
    try:
        left = [json.loads(body)]
    except (ValueError, RecursionError):
        return True
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "://" in str(value.get("path", "")):
                return True
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return False


def _host_name(address: str) -> str:
    """The host of ``host:port`` or ``scheme://host:port``, "" if it is neither."""
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for all that this process and Gradio write, gone at the end, also of a SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="qdformer_web_", ignore_cleanup_errors=True) as name:
        before, tempfile.tempdir = tempfile.tempdir, name
        # Gradio serves what lies in these two, under names that cannot be guessed.
        os.environ["GRADIO_TEMP_DIR"] = os.path.join(name, "served")
        os.environ["GRADIO_EXAMPLES_CACHE"] = os.path.join(name, "served", "examples")
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        try:
            yield Path(name)
        finally:
            tempfile.tempdir = before


def serve(
    predictor: AudioVisualPredictor,
    host: str = "127.0.0.1",
    port: int = 7860,
    ready: Callable[[str], None] = lambda address: None,
    hosts: Sequence[str] = (),
) -> None:
    """Serve the page until the process is told to end; from the main thread.

    Args:
        predictor: with the model.
        host: the address that is listened at; others than this machine's own let others in.
        port: that is listened at.
        ready: called with the page's address once it can be opened.
        hosts: names under which the page may be opened, beside this machine's addresses.

    Raises:
        InputError: the address cannot be listened at.
    """
    if not _is_own(host):
        logger.warning(
            "%s: whoever reaches this machine can use the page, there is no password; leave out "
            "--host to be its only user.",
            host,
        )
    with temporary_folder() as folder:
        # Here, since Gradio looks at the environment when it is imported.
        from starlette.middleware import Middleware

        from qdformer.demo.examples import write_examples
        from qdformer.demo.web_page import MAX_MEGABYTES, STYLE, THEME, WebPage

        page = WebPage(predictor, write_examples(folder / "examples"))
        page.blocks.queue(max_size=MAX_WAITING, api_open=False)
        try:
            _, address, _ = page.blocks.launch(
                server_name=host,
                server_port=port,
                max_file_size=f"{MAX_MEGABYTES}mb",
                state_session_capacity=MAX_SESSIONS,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                footer_links=[],
                theme=THEME,
                css=STYLE,
                app_kwargs={"middleware": [Middleware(OnlyNeeded, folder=folder, hosts=hosts)]},
            )
        except OSError as error:
            raise InputError(
                f"{host}:{port}: cannot be listened at, perhaps since another program does so; "
                "give another --host or --port"
            ) from error
        try:
            ready(address)
            threading.Event().wait()
        except KeyboardInterrupt:
            logger.info("The page is closed.")
        finally:
            page.closing.set()
            page.blocks.close(verbose=False)


def _is_own(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
