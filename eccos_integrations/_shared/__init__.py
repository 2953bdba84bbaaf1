"""What the integrations have in common: settings, errors, descriptions of answers, tools and scores.

Nothing here imports LangChain or LlamaIndex.
"""
