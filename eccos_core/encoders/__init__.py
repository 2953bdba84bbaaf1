"""Encoders: text to unit vectors, behind one protocol. Importing them loads no torch; encoding may."""

from eccos_core.encoders.cached import CachedEncoder
from eccos_core.encoders.concatenated import ConcatenatedEncoder
from eccos_core.encoders.sentence_transformer import SentenceTransformerEncoder
from eccos_core.encoders.static import StaticEncoder
from eccos_core.encoders.step import StepEncoder
from eccos_core.encoders.surface import SurfaceEncoder

__all__ = [
    "CachedEncoder",
    "ConcatenatedEncoder",
    "SentenceTransformerEncoder",
    "StaticEncoder",
    "StepEncoder",
    "SurfaceEncoder",
]
