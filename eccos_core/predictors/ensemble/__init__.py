"""The ensemble: stacks the learners, calibrates them, and gives the forecast with its error."""
