"""Learners: one file for each way to predict a target from the features of a question."""
