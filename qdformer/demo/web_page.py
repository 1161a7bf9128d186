"""The web page: what is on it, and what happens when it is used."""

import functools
import html
import logging
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from qdformer.audio.log_mel import SAMPLE_RATE
from qdformer.demo.inputs import SUFFIXES
from qdformer.demo.web_server import KEPT, LOOKED_AFTER
from qdformer.demo.web_session import (
    FASTEST,
    MAX_SECONDS,
    SLOWEST,
    ClassFound,
    Result,
    SoundChange,
    View,
    WebSession,
)
from qdformer.errors import InputError, one_line_message
from qdformer.modeling.inference import Thresholds
from qdformer.predictor import AudioVisualPredictor
from qdformer.synthetic.noise import SYNTHESIZED

logger = logging.getLogger(__name__)

TITLE = "What sounds in this video?"
MAX_MEGABYTES = 100
MAX_SOURCES = 4

STYLE = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
#found table { width: 100%; border-collapse: collapse; }
#found th, #found td { padding: 6px 8px; text-align: right; border: none;
  border-bottom: 1px solid var(--border-color-primary); }
#found th:first-child, #found td:first-child { text-align: left; min-width: 7em;
  overflow-wrap: anywhere; }
#found i { display: inline-block; width: 0.9em; height: 0.9em; margin-right: 0.5em;
  border-radius: 3px; vertical-align: -0.1em; }
#time-line { overflow-x: auto !important; contain: inline-size; }
@media (max-width: 720px) {
  #time-line img { min-width: 640px; }
  #time-line button { justify-content: flex-start; }
  /* The result comes before what may be changed: the column's parts are ordered with it. */
  #left { display: contents; }
  #left > * { flex: 1 1 100%; }
  #right { order: 1; }
  #sound, #view { order: 2; }
}
footer { display: none !important; }
"""

THEME = gr.themes.Default(
    primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)
"""With fonts of the system: no other is asked for."""

_ABOUT = f"""# {TITLE}
Drop in a video with sound and press **Segment**: what is heard in each second is colored in the
picture and named. Videos of up to {MAX_SECONDS} s and {MAX_MEGABYTES} MB are taken; they stay on
the computer that this page comes from, and are deleted there after an hour.
"""
_FAILED = "This did not work, and not because of the video; the log of the page's server says why."
_NO_VIDEO = "There is no video yet, or no longer; drop one in, or click on an example"
# Where Gradio puts files, which is nobody's business.
_CACHED = re.compile(r"\S*/[0-9a-f]{64}/")


def report_errors(handler: Callable) -> Callable:
    """Let a handler's errors come up in the page as sentences; the log has all of others."""

    @functools.wraps(handler)
    def run(*args: Any) -> Any:
        try:
            return handler(*args)
        except InputError as error:
            message = _CACHED.sub("", one_line_message(error))
        except Exception:
            logger.exception("%s failed", handler.__name__)
            message = _FAILED
        raise gr.Error(html.escape(message), duration=None, print_exception=False)

    return run


class WebPage:
    """The page with its components.

    Attributes:
        blocks: what Gradio serves.
        closing: once it is set, jobs end.
    """

    def __init__(self, predictor: AudioVisualPredictor, examples: dict[str, Path]):
        """
        Args:
            predictor: with the model.
            examples: videos by what is to be read on their buttons.
        """
        self.predictor, self.closing = predictor, threading.Event()
        with gr.Blocks(
            title=TITLE, analytics_enabled=False, delete_cache=(LOOKED_AFTER, KEPT)
        ) as self.blocks:
            self._session = gr.State(time_to_live=KEPT)
            gr.Markdown(_ABOUT)
            with gr.Row():
                with gr.Column(scale=2, min_width=320, elem_id="left"):
                    self._lay_out_input(examples)
                    self._start = gr.Button("Segment", variant="primary", elem_id="segment")
                    self._lay_out_sound()
                    self._lay_out_view()
                with gr.Column(scale=3, min_width=320, elem_id="right"):
                    self._lay_out_result()
            self._time_line = gr.Image(
                label="Time line", show_label=False, visible=False, interactive=False,
                format="png", buttons=["download", "fullscreen"], elem_id="time-line",
            )  # fmt: skip
            self._connect()

    def _lay_out_input(self, examples: dict[str, Path]) -> None:
        self._file = gr.File(
            label="Video", file_types=list(SUFFIXES), elem_id="video-file", height=150
        )
        self._about_video = gr.Markdown(elem_id="about-video")
        gr.Markdown(
            "No video at hand? These examples are composed of built-in drawings and sounds:"
        )
        with gr.Row(equal_height=True):
            for name, path in examples.items():
                button = gr.Button(name, size="sm", min_width=100, elem_classes="example")
                button.click(
                    functools.partial(str, path), None, self._file, api_visibility="private"
                )

    def _lay_out_sound(self) -> None:
        with gr.Accordion("Change the sound", open=False, elem_id="sound"):
            kinds = [("none", ""), *((kind, kind) for kind in SYNTHESIZED)]
            self._noise = gr.Dropdown(kinds, value="", label="Add noise", elem_id="noise")
            self._snr = gr.Slider(
                -20, 40, value=0, step=1, label="Sound over noise (dB)", elem_id="snr"
            )
            counts = [("leave whole", 1), *((str(n), n) for n in range(2, MAX_SOURCES + 1))]
            self._count = gr.Radio(
                counts, value=1, label="Take it apart into sources", elem_id="count"
            )
            self._players = [
                gr.Audio(
                    label=f"Source {number}", visible=False, interactive=False, buttons=[],
                    elem_classes="source",
                )
                for number in range(1, MAX_SOURCES + 1)
            ]  # fmt: skip
            self._muted = gr.CheckboxGroup(label="Mute", visible=False, elem_id="muted")

    def _lay_out_view(self) -> None:
        own = self.predictor.cfg.MODEL.QDFORMER
        with gr.Accordion("Change how it is segmented", open=False, elem_id="view"):
            self._every = gr.Slider(
                FASTEST, SLOWEST, value=1.0, step=0.1, label="Seconds between frames",
                elem_id="every",
            )  # fmt: skip
            self._class_threshold = gr.Slider(
                0, 1, value=own.CLASS_THRESHOLD, step=0.01,
                label="Least probability of a class", elem_id="class-threshold",
            )  # fmt: skip
            self._mask_threshold = gr.Slider(
                0, 1, value=own.MASK_THRESHOLD, step=0.01,
                label="Least probability of a pixel", elem_id="mask-threshold",
            )  # fmt: skip

    def _lay_out_result(self) -> None:
        self._overlay = gr.Video(
            label="What sounds, and where", interactive=False, autoplay=True, height=400,
            buttons=["download"], elem_id="overlay",
        )  # fmt: skip
        self._tokens = gr.CheckboxGroup(
            label="Tokens: whose masks are shown", visible=False, elem_id="tokens"
        )
        self._found = gr.HTML(elem_id="found", apply_default_css=False)
        self._files = gr.DownloadButton(
            "Download masks, annotations and time line", visible=False, size="sm", elem_id="files"
        )

    def _connect(self) -> None:
        # One job at a time, whoever asks for it.
        job = {"concurrency_id": "job", "concurrency_limit": 1, "api_visibility": "private"}
        results = [self._overlay, self._time_line, self._found]
        sources = [*self._players, self._muted]
        self._count.input(
            report_errors(self._separate),
            [self._session, self._count],
            sources,
            show_progress_on=self._muted,
            **job,
        )
        segmenting = self._start.click(
            report_errors(self._segment),
            [
                self._session,
                self._muted,
                self._noise,
                self._snr,
                self._every,
                self._class_threshold,
                self._mask_threshold,
            ],
            [self._tokens, self._files, *results],
            show_progress_on=self._overlay,
            **job,
        )
        showing = self._tokens.input(
            report_errors(self._show),
            [self._session, self._tokens],
            results,
            show_progress_on=self._overlay,
            trigger_mode="always_last",
            **job,
        )
        self._file.change(
            self._clear,
            self._session,
            [
                self._session,
                self._about_video,
                self._tokens,
                self._files,
                *results,
                self._count,
                *sources,
            ],
            cancels=[segmenting, showing],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        ).then(
            report_errors(self._open),
            self._file,
            [self._session, self._about_video],
            show_progress_on=self._about_video,
            **job,
        )

    def _clear(self, session: WebSession | None) -> list[Any]:
        if session is not None:
            session.closing.set()
        hidden = gr.update(value=None, visible=False)
        no_choice = gr.update(value=[], visible=False)
        players = [hidden] * MAX_SOURCES
        return [None, "", no_choice, hidden, None, hidden, "", 1, *players, no_choice]

    def _open(self, path: str | None) -> tuple[WebSession | None, str]:
        if path is None:
            return None, ""
        session = WebSession(path, self.predictor)
        video = session.video
        sound = (
            "with sound"
            if video.sound_track is not None
            else "without sound, so nothing in it sounds"
        )
        return session, f"{session.seconds:.1f} s, {video.width} x {video.height} pixels, {sound}"

    def _separate(self, session: WebSession | None, count: int) -> list[Any]:
        sources: Any = _present(session).separate(count) if count > 1 else []
        players = [
            gr.update(value=(SAMPLE_RATE, _to_16_bit(source)), visible=True) for source in sources
        ]
        players += [gr.update(value=None, visible=False)] * (MAX_SOURCES - len(sources))
        names = [(f"source {number + 1}", number) for number in range(len(sources))]
        return [*players, gr.update(choices=names, value=[], visible=count > 1)]

    def _segment(
        self,
        session: WebSession | None,
        muted: list[int],
        noise: str,
        snr: float,
        every: float,
        class_threshold: float,
        mask_threshold: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  (Gradio asks for it)
    ) -> list[Any]:
        session = _present(session)
        change = SoundChange(tuple(muted), noise, snr)
        view = View(every, Thresholds(mask_threshold, class_threshold))
        result = session.segment(change, self._shown(progress), view)
        names = [
            (f"{token} ({name})" if name else str(token), token)
            for token, name in enumerate(session.likeliest_classes())
        ]
        tokens = gr.update(choices=names, value=list(range(len(names))), visible=True)
        files = gr.update(value=str(result.files), visible=True)
        return [tokens, files, *_results(result)]

    def _show(
        self,
        session: WebSession | None,
        tokens: list[int],
        progress: gr.Progress = gr.Progress(),  # noqa: B008  (Gradio asks for it)
    ) -> list[Any]:
        return _results(_present(session).show(tokens, self._shown(progress)))

    def _shown(self, progress: gr.Progress) -> Callable[[float], None]:
        def show(share: float) -> None:
            if self.closing.is_set():
                raise InputError("The page is being closed.")
            progress(share, desc="Listening, looking, drawing")

        return show


def _present(session: WebSession | None) -> WebSession:
    if session is None:
        raise InputError(_NO_VIDEO)
    return session


def _results(result: Result) -> list[Any]:
    time_line = gr.update(value=result.time_line, visible=True)
    return [str(result.overlay), time_line, _table(result.classes)]


def _to_16_bit(waveform: np.ndarray) -> np.ndarray:
    # Floats would be played as loud as can be, each source by itself.
    return (np.clip(waveform, -1, 1) * (2**15 - 1)).astype(np.int16)


def _table(classes: Sequence[ClassFound]) -> str:
    if not classes:
        return "<p>Nothing sounds here, as far as this model knows.</p>"
    rows = [
        f'<tr><td><i style="background: rgb{row.color}"></i>{html.escape(row.name)}</td>'
        f"<td>{row.seconds:g} s</td><td>{row.score:.0%}</td><td>{row.share:.1%}</td></tr>"
        for row in classes
    ]
    head = "<tr><th>class</th><th>sounds</th><th>score</th><th>of the picture</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
