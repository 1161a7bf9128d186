"""Data sets of clips: layouts, classes, registration, validation.

Importing the package registers AVSBench as ``avsbench_{s4,ms3,avss}_{train,val,test}``.
"""

from qdformer.data.datasets import avsbench

__all__ = ["avsbench"]
