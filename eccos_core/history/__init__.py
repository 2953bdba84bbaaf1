"""Histories: recorded outcomes of past questions with their vectors. Importing this package does not load chromadb."""

from eccos_core.history.chroma import ChromaHistory
from eccos_core.history.memory import MemoryHistory

__all__ = ["ChromaHistory", "MemoryHistory"]
