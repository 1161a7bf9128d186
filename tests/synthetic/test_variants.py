import copy
import pickle

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from qdformer.audio.log_mel import clip_waveform, log_mel_examples
from qdformer.audio.separation import nmf
from qdformer.data.dataset_mapper import AVSDatasetMapper
from qdformer.errors import InputError
from qdformer.evaluation.registry import find_evaluator
from qdformer.io.audio_file import read_sound_file
from qdformer.io.image import read_label_map
from qdformer.synthetic.variants import register_noise_variants
from tests.samples import small_config

SEPARATION = ["INPUT.SEPARATION.METHOD", "nmf", "INPUT.SEPARATION.NUM_SOURCES", 3]


def mapper(is_train=False, *overrides):
    return AVSDatasetMapper(small_config("INPUT.MIN_SIZE_TEST", 64, *overrides), is_train)


def audio_of(record, *overrides):
    return mapper(False, *overrides)(record)["audio"]


def test_variants_differ_in_their_noise_alone(composed):
    names = register_noise_variants("tiny_avss_test", [20, -5.5])
    assert names == ["tiny_avss_test_snr20", "tiny_avss_test_snr-5.5"]
    original = DatasetCatalog.get("tiny_avss_test")
    for name, snr in zip(names, (20, -5.5)):
        records = DatasetCatalog.get(name)
        assert [record["noise"].snr for record in records] == [snr] * 3
        assert [{k: v for k, v in r.items() if k != "noise"} for r in records] == original
        metadata = MetadataCatalog.get("tiny_avss_test").as_dict() | {"name": name}
        assert MetadataCatalog.get(name).as_dict() == metadata
    assert register_noise_variants("tiny_avss_test", [20, -5.5]) == names


def test_the_mapper_mixes_what_it_reads(composed):
    (name,) = register_noise_variants("tiny_avss_test", [10])
    clean, noisy = (DatasetCatalog.get(n)[0] for n in ("tiny_avss_test", name))
    waveform = clip_waveform(clean["audio_file_name"], 3)
    assert len(waveform) == 3 * 16000
    mixed = noisy["noise"].add_to(waveform)
    ratio = np.sum(waveform.astype(float) ** 2) / np.sum((mixed - waveform) ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(10, abs=0.1)
    assert torch.equal(audio_of(noisy), log_mel_examples(mixed, 3))
    assert not torch.equal(audio_of(clean), audio_of(noisy))


def test_order_and_processes_change_nothing(composed):
    (name,) = register_noise_variants("tiny_avss_test", [0])
    records = DatasetCatalog.get(name)
    expected = [audio_of(record) for record in records]
    sent = pickle.loads(pickle.dumps(copy.deepcopy(records)))
    assert all(torch.equal(audio_of(r), e) for r, e in zip(sent[::-1], expected[::-1]))
    assert not torch.equal(expected[0], expected[1])


def test_in_training_a_frame_has_the_noise_of_its_second(composed):
    (name,) = register_noise_variants("tiny_avss_train", [0])
    record = DatasetCatalog.get(name)[0]
    np.random.seed(0)
    clip = mapper(True, "INPUT.NUM_FRAMES", 2)(record)
    start = record["file_names"].index(clip["file_names"][0])
    assert torch.equal(clip["audio"], audio_of(record)[start : start + 2])


@pytest.mark.parametrize("layout", ["avss", "ms3"])
def test_evaluators_work_on_the_variant(composed, layout):
    (name,) = register_noise_variants(f"tiny_{layout}_test", [0])
    metadata = MetadataCatalog.get(name)
    evaluator = find_evaluator(name)(name)
    for record in DatasetCatalog.get(name):
        read = [read_label_map(file, record["label_format"], metadata.stuff_colors)
                for file in record["sem_seg_file_names"]]  # fmt: skip
        labels = torch.from_numpy(np.stack(read))
        output = {"sem_seg": labels, "foreground": (labels > 0).float()}
        evaluator.process([mapper()(record)], [output])
    (metrics,) = evaluator.evaluate().values()
    assert metrics["mIoU" if layout == "avss" else "J&F"] == pytest.approx(100)


def test_separated_sounds_come_where_they_are_asked_for(composed, monkeypatch):
    record = DatasetCatalog.get("tiny_avss_test")[0]
    reads = []

    def read(*args):
        reads.append(args)
        return read_sound_file(*args)

    monkeypatch.setattr("qdformer.audio.log_mel.read_sound_file", read)
    clip = mapper(False, *SEPARATION)(record)
    assert len(reads) == 1
    assert torch.equal(clip["audio"], audio_of(record))
    waveform = clip_waveform(record["audio_file_name"], 3)
    expected = [log_mel_examples(source, 3) for source in nmf(waveform, 3)]
    assert torch.equal(clip["separated_audio"], torch.stack(expected))
    assert clip["separated_audio"].shape == (3, 3, 1, 96, 64)
    assert "separated_audio" not in mapper()(record)
    train = DatasetCatalog.get("tiny_avss_train")[0]
    assert "separated_audio" not in mapper(True, *SEPARATION)(train)


def test_noise_is_separated_with_the_sound(composed):
    (name,) = register_noise_variants("tiny_avss_test", [0])
    record = DatasetCatalog.get(name)[0]
    single = ["INPUT.SEPARATION.METHOD", "nmf", "INPUT.SEPARATION.NUM_SOURCES", 1]
    clip = mapper(False, *single)(record)
    torch.testing.assert_close(clip["separated_audio"][0], clip["audio"], atol=1e-4, rtol=1e-4)


def test_released_log_mel_is_refused(composed):
    record = DatasetCatalog.get("tiny_avss_test")[0] | {"audio_file_name": "clip.pkl"}
    DatasetCatalog.register("released", lambda: [record])
    try:
        with pytest.raises(InputError, match=r"clip\.pkl: is released log-mel.*wav file"):
            register_noise_variants("released", [0])
    finally:
        DatasetCatalog.remove("released")
    with pytest.raises(InputError, match=r"clip\.pkl: is released log-mel.*wav file"):
        mapper(False, *SEPARATION)(record)
