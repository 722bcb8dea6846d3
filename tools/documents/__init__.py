"""Holds the documents to the code: links, commands, settings, snippets and sizes. `python -m tools.documents`."""
