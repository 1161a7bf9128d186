import numpy as np

from qdformer.demo.examples import write_examples
from qdformer.video.reader import VideoFile


def test_examples_are_short_videos_with_sound_and_always_the_same(tmp_path):
    first, again = (write_examples(tmp_path / name) for name in ("first", "again"))
    assert len(first) == 3 and list(first) == list(again)
    for names, path in first.items():
        assert 2 <= len(names.split(", ")) <= 3
        video = VideoFile(path)
        assert (video.height, video.width, video.duration) == (256, 256, 5.0)
        assert video.sound().read(0, 5 * 16000).std() > 0.01
        moved = np.stack([picture.image for picture in video.sampled(1.0)]).std(axis=0)
        assert moved.max() > 30
        assert path.read_bytes() == again[names].read_bytes()
