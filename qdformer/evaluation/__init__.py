"""Evaluators of clips; importing them registers them for their ``evaluator_type``."""

from qdformer.evaluation.avs_object_evaluation import AVSObjectEvaluator
from qdformer.evaluation.avs_semantic_evaluation import AVSSemanticEvaluator

__all__ = ["AVSObjectEvaluator", "AVSSemanticEvaluator"]
