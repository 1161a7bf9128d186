"""Pictures and sound of video files, which may come from anywhere.

Neither headers nor times are believed; what cannot be decoded is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from qdformer.errors import InputError
from qdformer.video.audio_track import SoundTrack
from qdformer.video.hdr import HDR_CURVES, tone_mapped
from qdformer.video.media_source import FORMATS, MediaSource

MAX_SECONDS = 24 * 3600
"""The longest video that is read; times beyond it are those of a damaged file."""

_UNTAGGED = 2  # the color space of pictures that do not say theirs
_USUAL_RATE, _HIGHEST_RATE = Fraction(25), 1000
_LARGEST_ASPECT = 20
_LARGEST_HEADER = 4096 * 2304  # pixels, if the pictures are smaller than their header says


@dataclass(frozen=True)
class Picture:
    """A picture of a video and when it is shown.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright as players show it.
        pts: units of ``VideoFile.time_base`` from the first picture on, strictly ascending from 0.
        time: seconds from the first picture on.
        duration: how long the file says that it is shown, in the units of ``pts``; 0 where it does
            not say.
    """

    image: np.ndarray
    pts: int
    time: float
    duration: int = 0


class VideoFile:
    """An mp4, mov, mkv, webm, avi or gif file.

    Attributes:
        name: for messages, the path or "the file".
        height, width: pixels of its pictures as they are shown.
        time_base: seconds of a unit of time.
        rate: frames per second, on average.
        aspect: width of a pixel over its height, as it is shown.
        start: seconds of the first picture in the file's own clock.
        duration: seconds that the file claims to last, None where it does not.
        num_sound_tracks: how many tracks of sound there are to choose from.
        sound_track: which of them is read; None where none can be decoded.
    """

    def __init__(
        self, source: str | os.PathLike | BinaryIO, sound_track: int | None = None
    ) -> None:
        """Opens the file and decodes its first picture.

        Args:
            source: a path, or a file object that can seek and stays open.
            sound_track: which of the tracks of sound is read, from 0 on; None for the first that
                can be decoded. Where the sound cannot be decoded, a warning is logged.

        Raises:
            InputError: the file is missing, empty, of another format or too large, has no picture
                that can be decoded or no such track of sound.
        """
        self.media = MediaSource(source)
        self.name, self.sound_track = self.media.name, sound_track
        try:
            with self.media.opened() as container:
                self._read_header(container)
            self._read_first_picture()
        except InputError:
            raise
        except Exception as error:
            raise self.media.undecodable(error) from error

    def pictures(self) -> Iterator[Picture]:
        """All pictures, one at a time.

        Any number of these iterators may be used side by side. Packets that cannot be decoded are
        passed over, and pictures whose time does not go on follow the one before at the file's
        rate; how many is logged once. HDR is
        brought to standard range, interlaced pictures have every second line interpolated, and
        pictures of other sizes are fitted into the size of the video.

        Raises:
            InputError: the file lasts more than ``MAX_SECONDS``, or is no longer there.
        """
        to_rgb = VideoReformatter()
        for pts, frame in self._frames():
            yield self._picture(pts, frame, to_rgb)

    def sampled(self, every: float) -> Iterator[Picture]:
        """One picture for each ``every`` seconds, without a conversion of those in between.

        Args:
            every: seconds of a span, positive.

        Yields:
            As item k the picture that is shown in the middle of [k * every, (k + 1) * every), for
            each span that begins a millisecond or more before the last picture's end. Where that
            end comes before the middle it is the last picture.

        Raises:
            InputError: as :meth:`pictures`.
        """
        assert every > 0, every
        to_rgb, taken, span, pts = VideoReformatter(), None, 0, 0
        shown: Any = None
        for pts, frame in self._frames():
            while (span + 0.5) * every < pts * self.time_base:
                taken = taken or self._picture(shown[0], shown[1], to_rgb)
                yield taken
                span += 1
            shown, taken = (pts, frame), None
        if shown is None:
            return
        end = float(pts * self.time_base + self.shown_for(shown[1].duration))
        while span == 0 or span * every < end - 1e-3:
            taken = taken or self._picture(shown[0], shown[1], to_rgb)
            yield taken
            span += 1

    def shown_for(self, duration: int | None) -> Fraction:
        """Seconds of a duration in units of time; those of the rate where it is no credible one."""
        seconds = (duration or 0) * self.time_base
        return seconds if 0 < seconds <= MAX_SECONDS else 1 / self.rate

    def sound(self) -> SoundTrack:
        """The chosen track from its beginning; silence where the file has none."""
        return SoundTrack(self.sound_frames(), self.start, self.media.warn_once)

    def sound_stream(self, container: InputContainer) -> av.AudioStream | None:
        """The track that is read in an opened file."""
        return None if self.sound_track is None else container.streams.audio[self.sound_track]

    def _read_header(self, container: InputContainer) -> None:
        stream = self._picture_stream(container)
        self._choose_sound(container)
        self._header_size = stream.codec_context.height, stream.codec_context.width
        self.time_base, rate = stream.time_base, stream.average_rate or stream.guessed_rate
        if not self.time_base or self.time_base < 0:
            raise ValueError("its unit of time is 0")
        self.rate = rate if rate and 0 < rate <= _HIGHEST_RATE else _USUAL_RATE
        aspect = (stream.sample_aspect_ratio or Fraction(1)).limit_denominator(1000)
        plausible = 1 / _LARGEST_ASPECT <= aspect <= _LARGEST_ASPECT
        self.aspect = aspect if plausible else Fraction(1)
        seconds = (stream.duration or 0) * self.time_base or Fraction(
            container.duration or 0, 10**6
        )
        self.duration = float(seconds) if seconds > 0 else None

    def _choose_sound(self, container: InputContainer) -> None:
        tracks = container.streams.audio
        self.num_sound_tracks, asked = len(tracks), self.sound_track
        if asked is not None and not 0 <= asked < max(1, len(tracks)):
            raise InputError(
                f"{self.name}: track {asked} of its sound was asked for, and it has "
                f"{len(tracks)}; choose one of them, counted from 0."
            )
        # FFmpeg does not know every codec, iPhones' spatial sound for one.
        known = [k for k, stream in enumerate(tracks) if stream.codec_context is not None]
        if asked is None:
            self.sound_track = known[0] if known else None
        elif asked not in known:
            self.sound_track = None
        if tracks and self.sound_track is None:
            which = "no sound" if asked is None else f"no sound in track {asked}"
            self.media.warn_once(f"has {which} that can be decoded", "it is silent here")

    def _read_first_picture(self) -> None:
        self._first, self.height, self.width = 0, 0, 0
        for first, frame in self._frames():
            # Only of the first: a frame whose side data has been looked at outlives its last use.
            self._turn = _matrix(frame)
            image = self._picture(first, frame, VideoReformatter()).image
            self.height, self.width = self._size_of(image)
            self._first, self.start = first, first * self.time_base
            if self._turn[0]:
                self.aspect = 1 / self.aspect
            return
        raise InputError(f"{self.name}: no picture in it can be decoded; give {FORMATS}.")

    def _size_of(self, first: np.ndarray) -> tuple[int, int]:
        """What the header says, as a call over the web may begin small, if it can be believed."""
        height, width = self._header_size[:: -1 if self._turn[0] else 1]
        plausible = first.shape[0] * first.shape[1] < height * width <= _LARGEST_HEADER
        return (height, width) if plausible else first.shape[:2]

    def _picture_stream(self, container: InputContainer) -> av.VideoStream:
        for stream in container.streams.video:
            # A song's cover is no video.
            if stream.codec_context is not None and not (
                stream.disposition & Disposition.attached_pic
            ):
                return stream
        raise InputError(f"{self.name}: has no pictures that can be decoded; give {FORMATS}.")

    def _frames(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Pts from the first picture on, and pictures that are not converted yet."""
        step = max(1, round(1 / (self.rate * self.time_base)))
        last, back = None, 0
        with self.media.opened() as container:
            for frame in self.media.decoded(container, self._picture_stream(container), "pictures"):
                pts = frame.pts
                if pts is None:
                    pts = self._first if last is None else last + step
                elif last is not None and pts <= last:
                    # avi numbers pictures as they are stored, and joined recordings begin anew.
                    pts, back = last + step, back + 1
                last = pts
                if (pts - self._first) * self.time_base > MAX_SECONDS:
                    raise InputError(
                        f"{self.name}: lasts more than {MAX_SECONDS // 3600} hours; cut it."
                    )
                yield pts - self._first, frame
        if back:
            self.media.warn_once("has times that go back", f"{back} pictures follow at its rate")

    def sound_frames(self) -> Iterator[av.AudioFrame]:
        """What the chosen track decodes to, at times of the file's own clock."""
        with self.media.opened() as container:
            stream = self.sound_stream(container)
            if stream is not None:
                for frame in self.media.decoded(container, stream, "sound"):
                    frame.time_base = stream.time_base  # the last ones have none
                    yield frame

    def _picture(self, pts: int, frame: av.VideoFrame, to_rgb: VideoReformatter) -> Picture:
        curve = HDR_CURVES.get(int(frame.color_trc))
        form = "rgb48le" if curve else "rgb24"
        try:
            image = to_rgb.reformat(frame, format=form).to_ndarray()
        except av.FFmpegError:
            image = self._untagged(frame, to_rgb, form)
        if curve:
            image = tone_mapped(image, curve)
        if frame.interlaced_frame:
            image = _deinterlaced(image)
        turned, down, left = self._turn
        image = cv2.transpose(image) if turned else image
        if down or left:
            image = cv2.flip(image, -1 if down and left else 1 if left else 0)
        if self.height and image.shape[:2] != (self.height, self.width):
            image = _fitted(image, self.height, self.width)
        return Picture(image, pts, float(pts * self.time_base), frame.duration or 0)

    def _untagged(self, frame: av.VideoFrame, to_rgb: VideoReformatter, form: str) -> np.ndarray:
        frame.colorspace = _UNTAGGED
        try:
            return to_rgb.reformat(frame, format=form).to_ndarray()
        except Exception as error:
            raise self.media.undecodable(error) from error


def _deinterlaced(image: np.ndarray) -> np.ndarray:
    """The first field's lines, and what lies between them in place of the second's."""
    image = image.copy()
    upper, lower = image[:-2:2].astype(np.uint16), image[2::2]
    image[1 : 2 * len(upper) : 2] = (upper + lower) >> 1
    return image


def _fitted(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """As large as fits into the size, in its proportions, on black."""
    scale = min(height / image.shape[0], width / image.shape[1])
    rows, columns = (max(1, round(scale * side)) for side in image.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    inside = cv2.resize(image, (columns, rows), interpolation=method)
    top, left = (height - rows) // 2, (width - columns) // 2
    return cv2.copyMakeBorder(
        inside, top, height - rows - top, left, width - columns - left, cv2.BORDER_CONSTANT
    )


def _matrix(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Whether rows and columns change places, then whether down is up and right is left."""
    try:
        matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
    except ValueError:
        # Something else in it is newer than PyAV. That leaves the angle, but not mirroring.
        turns = round(frame.rotation / 90) % 4
        return turns % 2 == 1, turns in (1, 2), turns in (2, 3)
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(matrix, np.int32, 5).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, b < 0, c < 0
    return False, d < 0, a < 0
