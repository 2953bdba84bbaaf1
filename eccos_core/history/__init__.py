"""Histories: what every model made of past questions."""
