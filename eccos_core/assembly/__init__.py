"""Assembly: from a configuration to a running router, and to the next one when the file changes."""
