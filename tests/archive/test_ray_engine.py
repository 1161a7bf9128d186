"""Two Ray nodes on one machine."""

import functools
import signal

import pytest

from qdformer.archive.items import Item, find_items
from qdformer.archive.prediction import predict_archive
from qdformer.archive.ray_engine import RayEngine
from qdformer.archive.tables import ArchiveTables
from qdformer.predictor import AudioVisualPredictor
from tests.archive.test_prediction import RUN, assert_rows_of, read

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    # A cluster that waits for itself ends the test, not the suite.
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(600)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.second = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    signal.alarm(0)


def _give_up(*_):
    raise TimeoutError("the cluster is not done after 600 s")


def ray_engine(weights, predictor, actors=2):
    load = functools.partial(AudioVisualPredictor, str(weights))
    return RayEngine(load, predictor.cfg, every=1.0, actors=actors, batch=4)


def test_a_node_that_dies_costs_no_video(cluster, predictor, weights, videos, tmp_path):
    """200 clips, five of them broken, and one of two nodes is killed in the middle."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes((videos / "a.mp4").read_bytes()[:900])
    paths = [item.path for item in find_items([str(videos)])]
    items = [
        Item(f"{n:03d}", str(broken) if n % 40 == 7 else paths[n % len(paths)]) for n in range(200)
    ]
    engine, answered = ray_engine(weights, predictor), 0

    def interrupted(given):
        nonlocal answered
        for event in engine(given):
            answered += 1
            if answered == 40:
                cluster.remove_node(cluster.second, allow_graceful=False)
            yield event

    output = tmp_path / "output"
    predict_archive(items, interrupted, ArchiveTables(output, RUN))
    rows, errors = read(output), read(output, "errors.parquet")
    assert answered > 40
    assert len(rows) == 195 and len(errors) == 5
    names = [row["name"] for row in rows + errors]
    assert sorted(names) == [item.name for item in items]
    by_path = {paths.index(item.path): item.name for item in items if item.path in paths}
    named = {row["name"]: row for row in rows}
    checked = [named[by_path[k]] | {"name": p} for k, p in enumerate(paths)]
    assert_rows_of(predictor, checked, videos)
