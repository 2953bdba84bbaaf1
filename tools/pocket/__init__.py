"""Makes the pocket pool: train its models, record their history, fit its predictor."""
