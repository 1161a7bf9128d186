from dataclasses import replace

from qdformer.benchmark import growth
from qdformer.benchmark.charts import draw_growth
from qdformer.benchmark.growth import measure_growth
from qdformer.benchmark.options import Workload


def test_each_length_and_each_size_once_beside_the_same_reference(
    options, monkeypatch, ticking, tmp_path
):
    asked, references = [], set()

    def peak_memory(cfg, workload, run):
        asked.append((workload, run))
        return 10**9 * workload.frames

    def reference(workload):
        references.add(workload)
        return lambda: None

    monkeypatch.setattr(growth, "peak_memory", peak_memory)
    monkeypatch.setattr(growth, "Reference", reference)
    monkeypatch.setattr(growth, "clock_of", lambda device: ticking)
    options = replace(options, workload=Workload(frames=2, size=32, batch=2))
    found = [list(points) for points in measure_growth(options.load_config(), options)]
    assert [len(points) for points in found] == [1, 2, 3]
    points = found[-1]
    assert [(point["frames"], point["size"]) for point in points] == [(1, 32), (2, 32), (2, 64)]
    assert [point["memory"] for point in points] == [10**9, 2 * 10**9, 2 * 10**9]
    assert all(point["ratio"]["median"] == 1 for point in points)
    assert asked[0] == (Workload(frames=1, size=32, batch=2), "eval")
    assert references == {Workload(frames=5, size=224, batch=1)}

    result = {"settings": options.settings(), "results": {"growth": points}}
    draw_growth(result, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
