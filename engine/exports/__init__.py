"""Out of the lab: what other people's programs open. Everything here is plain files; only `model` loads torch."""
