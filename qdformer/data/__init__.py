"""Data sets, their files and what the model reads of them.

Importing the package registers AVSBench as ``avsbench_{s4,ms3,avss}_{train,val,test}``.
"""

from qdformer.data import avsbench

__all__ = ["avsbench"]
