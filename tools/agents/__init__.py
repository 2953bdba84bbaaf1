"""Run real coding agents against a real `eccos serve`, with scripted models behind it."""
