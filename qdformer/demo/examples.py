"""Composed clips with sound, to try a model with where no video is at hand."""

from pathlib import Path

import numpy as np

from qdformer.data.datasets.layout import SPLITS
from qdformer.synthetic.assets import AssetFolders, load_libraries
from qdformer.synthetic.composer import SOURCES
from qdformer.synthetic.scene import draw_frames, mix, plan_clip
from qdformer.video.writer import write_video

_COUNT, _SECONDS, _SIDE, _SNR, _SEED = 3, 5, 256, 20.0, 23


def write_examples(folder: Path) -> dict[str, Path]:
    """Compose clips of built-in classes in which two or three sources sound by turns.

    Args:
        folder: takes the videos; made where it is missing.

    Returns:
        The videos by what sounds in them; always the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # With its share of the assets, which no quickstart was trained with.
    library = load_libraries(AssetFolders(), (), SPLITS)["test"]
    names = list(library.sounds)
    examples = {}
    for number in range(_COUNT):
        rng = np.random.default_rng([_SEED, number])
        clip = plan_clip(rng, library, _SECONDS, SOURCES["multi"])
        heard = [names[source.class_index - 1] for source in clip.sources]
        path = folder / f"{'_'.join(heard)}.mp4"
        frames = (frame for frame, _ in draw_frames(clip, _SIDE))
        write_video(path, frames, 1.0, mix(rng, clip, _SNR))
        examples[", ".join(heard)] = path
    return examples
