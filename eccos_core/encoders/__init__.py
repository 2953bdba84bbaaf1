"""Encoders: text to unit vectors, behind one protocol."""
