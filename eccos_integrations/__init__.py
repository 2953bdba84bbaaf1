"""Adapters that only translate: `eccos_integrations.langchain`, `eccos_integrations.llama_index`.

Each needs its framework (`pip install 'eccos[langchain]'`, `pip install 'eccos[llama-index]'`); neither imports the
other.
"""
