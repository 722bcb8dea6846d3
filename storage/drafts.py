"""Drafts: designs that a person has not started yet, kept as they were left, valid or not."""

from __future__ import annotations

import json
from typing import Any

from sqlite_utils import Database

from storage.database import now, write


def save_draft(db: Database, draft_id: str, body: dict[str, Any]) -> None:
    """Store the draft of that id, in place of the older one."""
    row = {"id": draft_id, "body": json.dumps(body, ensure_ascii=False), "updated_at": now()}
    with write(db):
        db.table("drafts").insert(row, replace=True)


def load_draft(db: Database, draft_id: str) -> dict[str, Any] | None:
    """The draft of that id, or None."""
    for row in db.query("select body from drafts where id = ?", [draft_id]):
        return json.loads(row["body"])
    return None
