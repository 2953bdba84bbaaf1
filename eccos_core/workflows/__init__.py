"""Workflows: the jobs behind the commands `fit`, `ingest`, `plan` and `demo`."""
