"""Which evaluator scores a data set."""

from typing import Any

from detectron2.data import MetadataCatalog
from fvcore.common.registry import Registry

from qdformer.errors import InputError

EVALUATOR_REGISTRY = Registry("EVALUATOR")
EVALUATOR_REGISTRY.__doc__ = """
Evaluators for the ``evaluator_type`` of a data set's metadata: Detectron2's ``DatasetEvaluator``
classes, made by ``evaluator(dataset_name, output_dir)``. They name their ``task``, which is the
type and the key of their results, and among these the ``primary_metric``, which picks the best
checkpoint.
"""


def find_evaluator(dataset_name: str) -> Any:
    """The registered evaluator whose ``task`` is the data set's ``evaluator_type``.

    Raises:
        InputError: there is none.
    """
    evaluators = {evaluator.task: evaluator for _, evaluator in EVALUATOR_REGISTRY}
    given = MetadataCatalog.get(dataset_name).evaluator_type
    if given not in evaluators:
        raise InputError(
            f"data set {dataset_name!r} has evaluator_type {given!r}; known: "
            f"{', '.join(evaluators)}"
        )
    return evaluators[given]
