"""Fine-tuning: train a text encoder end to end, with a quality head and a length head."""
