"""Scripts that make what the encoders ship."""
