"""Histories: what every model made of past questions. Importing them loads no chromadb."""

from eccos_core.history.chroma import ChromaHistory
from eccos_core.history.memory import MemoryHistory

__all__ = ["ChromaHistory", "MemoryHistory"]
