"""The tables of attack experiments, as migrations of the lab's database."""

from __future__ import annotations

from sqlite_utils import Database


def create_attack_tables(db: Database) -> None:
    """attacks, attack_results, and what makes a run a cell of an attack."""
    db.conn.execute(
        """create table attacks (
            id text primary key,
            name text not null,
            experiment text not null,          -- JSON, resolved and frozen
            created_at text not null,
            recorded text                      -- JSON: when, where and how, of one that was measured elsewhere
        ) strict"""
    )
    db.conn.execute("alter table runs add column attack text references attacks (id) on delete cascade")
    db.conn.execute("alter table runs add column cell text")  # JSON: what the cell trains and on what
    db.conn.execute("alter table runs add column cell_place integer")
    db.conn.execute("alter table runs add column needs text")  # a run that must have ended before this one starts
    db.conn.execute("create index runs_by_attack on runs (attack, cell_place)")
    db.conn.execute(
        """create table attack_results (
            run text not null references runs (id) on delete cascade,
            position integer not null,
            reading text not null,              -- the reading that was asked; '' where none was
            role text not null,
            checkpoint text not null,
            facts text not null,                -- held_out, trained, never_memorised or own
            split text not null,
            language text not null,
            metric text not null,
            value real not null,
            low real not null,
            high real not null,
            n integer not null,
            n_facts integer not null,
            by_fact text not null,              -- JSON: [[sum, answers], …], one pair a fact
            primary key (run, position)
        ) strict, without rowid"""
    )
