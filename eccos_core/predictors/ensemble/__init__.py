"""Stack the learners, calibrate their prediction, and forecast with a standard error."""
