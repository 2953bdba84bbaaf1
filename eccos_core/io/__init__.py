"""Files, outcomes, token counts and threads: what touches the machine and knows nothing of routing."""
