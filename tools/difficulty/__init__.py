"""Make the general difficulty that ships with eccos, from questions of five levels."""
