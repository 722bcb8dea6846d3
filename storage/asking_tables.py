"""The tables of what was asked (storage/askings.py), as migrations 5 and 8 make them."""

from __future__ import annotations

from sqlite_utils import Database


def create_asking_tables(db: Database) -> None:
    """Migration 5: askings with their questions, columns, answers and alternatives, by their first names."""
    db.conn.execute(
        """create table askings (
            id text primary key,
            kind text not null check (kind in ('fact', 'text', 'facts')),
            run text not null,                  -- no reference: what was asked outlives its run
            run_name text not null,
            relation text not null,
            subject text not null,
            object text,
            title text not null,                -- what was asked in one line, for lists and searches
            settings text not null,             -- JSON: temperature, top_p, seed, max_tokens
            created_at text not null
        ) strict"""
    )
    db.conn.execute("create index askings_by_time on askings (created_at desc)")
    db.conn.execute(
        """create table asked_questions (
            asking text not null references askings (id) on delete cascade,
            number integer not null,
            split text not null,                -- key, train, test, unrelated, decoy, or free
            language text not null,
            prompt text not null,               -- with its place for the subject
            text text not null,                 -- as it was asked
            subject text not null,
            object text,                        -- null where nothing is known to be true: neither hit nor miss
            about text,
            trained integer,
            primary key (asking, number)
        ) strict, without rowid"""
    )
    db.conn.execute(
        """create table asked_columns (
            asking text not null references askings (id) on delete cascade,
            model text not null,                -- RUN/CHECKPOINT
            position integer not null,
            run text not null,
            run_name text not null,
            checkpoint text not null,
            state text not null default 'waiting' check (state in ('waiting', 'asking', 'done', 'failed')),
            error text,
            backend text,
            requested_at text not null,
            finished_at text,
            lease_until real,
            served_at real not null default 0,
            tries integer not null default 0,
            primary key (asking, model)
        ) strict"""
    )
    db.conn.execute("create index asked_columns_by_state on asked_columns (state, served_at)")
    db.conn.execute(
        """create table asked_answers (
            asking text not null,
            model text not null,
            number integer not null,
            answer text not null,
            hit integer,
            log_probability real,               -- natural logarithm, of the object after the prompt
            rank integer,
            options integer,
            tokens text not null,               -- JSON: [{id, text, log_probability}]
            complete integer not null,          -- 0 while its rank is still to come
            error text,
            at text not null,
            primary key (asking, model, number),
            foreign key (asking, model) references asked_columns (asking, model) on delete cascade
        ) strict, without rowid"""
    )
    db.conn.execute(
        """create table asked_alternatives (
            asking text not null,
            model text not null,
            number integer not null,
            place integer not null,             -- of the answer's tokens, from 0
            state text not null default 'waiting' check (state in ('waiting', 'asking', 'done', 'failed')),
            alternatives text not null default '[]',
            error text,
            lease_until real,
            primary key (asking, model, number, place),
            foreign key (asking, model) references asked_columns (asking, model) on delete cascade
        ) strict"""
    )


def rename_asking_tables(db: Database) -> None:
    """Migration 8: `asked_questions` becomes `asking_questions`, and so on; references follow, data stays."""
    for what in ("questions", "columns", "answers", "alternatives"):
        db.conn.execute(f"alter table asked_{what} rename to asking_{what}")
    db.conn.execute("drop index asked_columns_by_state")
    db.conn.execute("create index asking_columns_by_state on asking_columns (state, served_at)")
