"""Backups of a lab, moving what it has to another, and what takes the room on its disk."""
