"""Finished runs as files without models, for labs that have not run them: the lab shows every `*.json.xz` in here."""
