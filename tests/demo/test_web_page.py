"""The web page in a browser, served by the script itself."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qdformer.errors import InputError
from qdformer.video.reader import VideoFile
from qdformer.video.writer import write_video

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required"
)
ENCODED = 'video/mp4; codecs="avc1.64001f, mp4a.40.2"'
SLOW = 30_000  # ms; the machine may be busy
PLAYED = """() => { const video = document.querySelector("#overlay video");
  return video && video.readyState >= 2 && video.currentTime > 0.3; }"""
ANOTHER = """before => { const video = document.querySelector("#overlay video");
  return video && video.currentSrc && video.currentSrc != before; }"""


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [path for path in map(shutil.which, names) if path]
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path
        if not found and not os.path.exists(own):
            pytest.skip("there is no Chromium")
        browser = driver.chromium.launch(
            executable_path=found[0] if found else own, args=OPTIONS.split()
        )
        page = browser.new_page()
        if not page.evaluate(f"document.createElement('video').canPlayType('{ENCODED}')"):
            pytest.skip("this Chromium does not play mp4 files")
        page.close()
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(browser, checkpoint, tmp_path_factory):
    """Of a page served by web_demo.py, which leaves nothing behind when it is told to end."""
    folder = tmp_path_factory.mktemp("temporary")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = ROOT / "projects" / "QDFormer" / "web_demo.py"
    command = [sys.executable, str(script), "--weights", str(checkpoint), "--port", str(port)]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    log = folder.parent / "web_demo.log"
    with log.open("w") as errors:
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True, cwd=folder
        )
    try:
        said = server.stdout.readline()
        assert f"http://127.0.0.1:{port}/" in said, log.read_text()
        yield f"http://127.0.0.1:{port}"
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert list(folder.iterdir()) == []
        assert "Traceback" not in log.read_text()
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.fixture
def page(browser, address):
    """The page as it opens; nothing that it does may leave this machine or fail in the browser."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(SLOW)
    page = context.new_page()
    foreign, failures = [], []
    page.on("request", lambda sent: foreign.append(sent.url))
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(address)
    page.locator("#segment").wait_for()
    yield page
    context.close()
    own = (address, "data:", "blob:")
    assert [url for url in foreign if not url.startswith(own)] == []
    assert failures == []


def upload(page, path):
    page.locator("#video-file input[type=file]").set_input_files(path)


def opened(page, path):
    upload(page, path)
    expect(page.locator("#about-video")).to_contain_text("pixels", timeout=SLOW)


def source(page):
    return page.locator("#overlay video").evaluate("video => video.currentSrc")


def result_of(page, act):
    """The overlay that comes after an act, as it is served."""
    before = source(page) if page.locator("#overlay video").count() else ""
    act()
    page.wait_for_function(ANOTHER, arg=before)
    return shown(page)


def shown(page):
    return VideoFile(BytesIO(page.request.get(source(page)).body()))


def pictures(video):
    return np.stack([picture.image for picture in video.pictures()]).astype(int)


def heard(video, seconds=3):
    return video.sound().read(0, seconds * 16000)


def test_an_uploaded_video_comes_back_with_what_sounds(page, short_video):
    opened(page, short_video)
    expect(page.locator("#about-video")).to_have_text("3.0 s, 128 x 96 pixels, with sound")
    overlay = result_of(page, page.locator("#segment").click)
    page.wait_for_function(PLAYED)
    video = page.locator("#overlay video")
    assert video.evaluate("video => video.duration") == pytest.approx(3, abs=0.05)
    assert video.evaluate("video => video.webkitAudioDecodedByteCount") > 0
    assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [128, 96]
    original = VideoFile(short_video)
    assert abs(pictures(overlay) - pictures(original)).mean() > 10
    np.testing.assert_array_equal(heard(overlay), heard(original))

    expect(page.locator("#time-line img")).to_be_visible()
    width = page.locator("#time-line img").evaluate("image => image.decode().then(() => "
                                                    "image.naturalWidth)")  # fmt: skip
    assert width > 600
    rows = page.locator("#found tbody tr").all_inner_texts()
    assert rows
    for row in rows:
        assert re.fullmatch(r"(bell|drum|siren|<b>bird</b>)\t[123] s\t\d+%\t[\d.]+%", row)


def test_a_tokens_box_switches_its_masks(page, short_video):
    opened(page, short_video)
    everything = pictures(result_of(page, page.locator("#segment").click))
    boxes = page.locator("#tokens input")
    expect(boxes).to_have_count(5)
    less = pictures(result_of(page, boxes.first.uncheck))
    assert all((now != before).any() for now, before in zip(less, everything))
    for index in range(1, 5):
        boxes.nth(index).uncheck()
    expect(page.locator("#found")).to_contain_text("Nothing sounds", timeout=SLOW)
    # Nothing is left but the video, encoded once more.
    assert abs(pictures(shown(page)) - pictures(VideoFile(short_video))).mean() < 3
    np.testing.assert_array_equal(
        pictures(result_of(page, page.locator("#segment").click)), everything
    )


def test_noise_is_heard(page, short_video):
    opened(page, short_video)
    page.get_by_text("Change the sound").click()
    page.locator("#noise input").click()
    page.get_by_role("option", name="white").click()
    noisy = heard(result_of(page, page.locator("#segment").click))
    sound = heard(VideoFile(short_video))
    # Where both are too loud for a file together, both are softer.
    gain = noisy @ sound / (sound @ sound)
    noise = noisy / gain - sound
    ratio = 10 * np.log10((sound @ sound) / (noise @ noise))
    assert ratio == pytest.approx(0, abs=0.5)
    assert abs(np.corrcoef(noise, sound)[0, 1]) < 0.1


def test_sources_are_listened_to_and_muted(page, short_video):
    opened(page, short_video)
    files = []
    page.on("request", lambda sent: sent.url.endswith("audio.wav") and files.append(sent.url))
    page.get_by_text("Change the sound").click()
    page.locator("#count").get_by_text("2", exact=True).click()
    # Two players that know how long their sounds are.
    expect(page.locator(".source #duration", has_text="0:03")).to_have_count(2, timeout=SLOW)
    sources = [soundfile.read(BytesIO(page.request.get(file).body()))[0] for file in {*files}]
    first, second = sorted(sources, key=lambda source: -(source @ source))
    np.testing.assert_allclose(first + second, heard(VideoFile(short_video)), atol=1e-4)
    page.locator("#muted input").first.check()
    left = heard(result_of(page, page.locator("#segment").click))
    assert np.corrcoef(left, second)[0, 1] > 0.95 > abs(np.corrcoef(left, first)[0, 1])
    page.locator("#muted input").nth(1).check()
    assert abs(heard(result_of(page, page.locator("#segment").click))).max() < 1e-3


def test_what_cannot_be_used_is_told_in_a_sentence(page, tmp_path):
    message = page.locator(".toast-body")

    def told(sentence):
        expect(message).to_contain_text(sentence, timeout=SLOW)
        # Neither a traceback nor where files lie.
        assert not re.search("Traceback|served", message.inner_text())
        page.locator(".toast-close").click()
        expect(message).to_have_count(0)

    page.locator("#segment").click()
    told("There is no video yet, or no longer; drop one in, or click on an example")
    broken = tmp_path / "broken <img src=x>.mp4"
    broken.write_bytes(b"\0\0\0\x18ftypisom" + bytes(1000))
    upload(page, broken)
    told("cannot be decoded as a video")
    page.locator("#segment").click()
    told("There is no video yet")
    page.locator("#video-file [aria-label=Clear]").click()
    long = tmp_path / "long.mp4"
    write_video(long, (np.zeros((16, 16, 3), np.uint8) for _ in range(62)), 1.0)
    upload(page, long)
    told("long.mp4: lasts 62 s, and this page takes up to 60 s")


def test_errors_become_sentences_and_the_log_has_the_rest(caplog):
    from gradio import Error

    from qdformer.demo.web_page import report_errors

    def fail(error):
        raise error

    folder = f"/tmp/of_this_process/served/{'0a' * 32}"
    with pytest.raises(Error) as shown:
        report_errors(fail)(InputError(f"{folder}/<b>.mp4: is empty; give a video"))
    assert shown.value.message == "&lt;b&gt;.mp4: is empty; give a video"
    assert not caplog.records
    with pytest.raises(Error) as shown:
        report_errors(fail)(RuntimeError("secret"))
    assert re.fullmatch(r"This did not work, .*\.", shown.value.message)
    assert "secret" in caplog.text and "secret" not in shown.value.message


def test_an_example_is_one_click_away_and_fits_a_narrow_screen(page):
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.locator(".example")).to_have_count(3)
    page.locator(".example").first.click()
    expect(page.locator("#about-video")).to_have_text("5.0 s, 256 x 256 pixels, with sound")
    result_of(page, page.locator("#segment").click)
    page.wait_for_function(PLAYED)
    page.locator("#time-line img").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    # What was found comes before what may be changed.
    places = [
        page.locator(name).bounding_box()["y"]
        for name in ("#segment", "#overlay", "#files", "#sound", "#view", "#time-line")
    ]
    assert places == sorted(places)


def test_seconds_and_thresholds_are_chosen_and_files_downloaded(page, short_video):
    opened(page, short_video)
    page.get_by_text("Change how it is segmented").click()
    page.locator("#every input[type=number]").fill("0.5")
    page.locator("#every input[type=number]").blur()
    result_of(page, page.locator("#segment").click)
    with page.expect_download() as download:
        page.locator("#files").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        document = json.loads(archive.read("annotations.json"))
        names = archive.namelist()
    assert document["info"]["every"] == 0.5 and len(document["images"]) == 6
    for image in document["images"]:
        assert {image["file_name"], image["label_map"]} <= {*names}
    assert "time_line.png" in names
    page.locator("#class-threshold input[type=number]").fill("1")
    page.locator("#class-threshold input[type=number]").blur()
    result_of(page, page.locator("#segment").click)
    expect(page.locator("#found")).to_contain_text("Nothing sounds", timeout=SLOW)


def test_nothing_else_is_served(page, address, checkpoint, short_video):
    def status(path):
        try:
            return urllib.request.urlopen(f"{address}{path}").status
        except urllib.error.HTTPError as error:
            return error.code

    opened(page, short_video)
    own = page.locator("#video-file a[href]").evaluate("link => link.href")
    # Not by guessing, either.
    assert re.search(r"/served/[0-9a-f]{64}/short\.mp4$", own)
    path = own.removeprefix(address)
    assert status(path) == 200
    folder = path.partition("/served/")[0]
    for other in (
        "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={checkpoint}",
        f"/gradio_api/file={ROOT / 'README.md'}",
        f"{folder}/served/../examples/drum_panflute.mp4",
        "/gradio_api/file=http://127.0.0.1/",
        "/gradio_api/openapi.json",
        "/docs",
        "/monitoring",
    ):
        assert status(other) in (403, 404), other
