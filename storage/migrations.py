"""The numbered migrations of the lab's database. One that was ever released is never changed: what comes later is a
further one.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations

migrations = Migrations("lab")


@migrations()
def m001_runs(db: Database) -> None:
    """Runs, which are also the queue."""
    db.conn.execute(
        """create table runs (
            id text primary key,
            name text not null,
            state text not null default 'queued'
                check (state in ('queued', 'running', 'stopping', 'done', 'failed', 'cancelled')),
            experiment text not null,          -- JSON, resolved and frozen
            model text not null,
            seed integer not null,
            cloned_from text,
            created_at text not null,
            started_at text,
            finished_at text,
            attempt integer not null default 0, -- grows with each claim; a writer with an older number has lost the run
            worker text,                        -- the claiming worker's id while the run is claimed
            lease_until real,                   -- seconds since 1970; past this moment the run may be claimed again
            stalls integer not null default 0,  -- training processes that died in a row without progress
            error text,                         -- one sentence
            progress text not null default '{}',
            headline text not null default '{}',
            environment text not null default '{}'
        ) strict"""
    )
    db.conn.execute("create index runs_by_time on runs (created_at desc)")
    db.conn.execute("create index runs_by_state on runs (state, created_at)")


@migrations()
def m002_events_and_measurements(db: Database) -> None:
    """What happened in a run, and what was measured on its way."""
    db.conn.execute(
        """create table events (
            id integer primary key,
            run text not null references runs (id) on delete cascade,
            at text not null,
            kind text not null,
            message text not null
        ) strict"""
    )
    db.conn.execute("create index events_by_run on events (run, id)")
    db.conn.execute(
        """create table measurements (
            run text not null references runs (id) on delete cascade,
            stage text not null,                -- 'stage1', or 'stage2@EPOCH'
            series text not null,               -- 'loss' or 'probe'
            step integer not null,
            epoch real not null,
            value real not null,
            primary key (run, stage, series, step)
        ) strict, without rowid"""
    )


@migrations()
def m003_results(db: Database) -> None:
    """The rows of a finished evaluation."""
    db.conn.execute(
        """create table results (
            run text not null references runs (id) on delete cascade,
            checkpoint text not null,
            facts text not null,
            split text not null,
            language text not null,
            metric text not null,
            value real not null,
            low real not null,
            high real not null,
            n integer not null,
            n_facts integer not null,
            position integer not null,
            primary key (run, checkpoint, facts, split, language, metric)
        ) strict, without rowid"""
    )


@migrations()
def m004_drafts_and_workers(db: Database) -> None:
    """Experiments that are being designed, and the workers that live."""
    db.conn.execute(
        """create table drafts (
            id text primary key,
            body text not null,                 -- JSON, as the page left it: may be invalid on purpose
            updated_at text not null
        ) strict"""
    )
    db.conn.execute(
        """create table workers (
            id text primary key,
            host text not null,
            pid integer not null,
            process_started real not null,      -- tells a reused process id from the same process
            heartbeat real not null,
            run text
        ) strict"""
    )


@migrations()
def m005_asked(db: Database) -> None:
    """What was asked on the page, and the answers."""
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


@migrations()
def m006_servers_and_devices(db: Database) -> None:
    """Model servers, and who holds a device."""
    db.conn.execute(
        """create table servers (
            id text primary key,
            backend text not null check (backend in ('vllm', 'embedded')),
            serves text not null,               -- '' for every model; else the base's key, or RUN/CHECKPOINT
            reason text not null,               -- why this backend, in words
            plan text not null,                 -- what was started, hashed: a server of another plan is not reused
            state text not null
                check (state in ('starting', 'ready', 'restarting', 'waiting', 'failed')),
            message text not null default '',
            host text not null,
            port integer,
            pid integer,                        -- its keeper: leads the session that all its processes are in
            process_started real,
            owner_pid integer not null,         -- the lab (or command) that watches over it
            owner_started real not null,
            restarts integer not null default 0,
            started_at text not null,
            ready_at text,
            start_seconds real                  -- from its start to its first answer
        ) strict"""
    )
    db.conn.execute(
        """create table devices (
            device text not null,               -- cuda, cuda:1, mps, cpu
            holder text not null,               -- the id of a run or of a server
            kind text not null check (kind in ('run', 'server')),
            state text not null check (state in ('holding', 'waiting')),
            host text not null,
            pid integer not null,               -- with this process the hold ends
            process_started real not null,
            since text not null,
            primary key (device, holder)
        ) strict, without rowid"""
    )


@migrations()
def m007_attacks(db: Database) -> None:
    """Attacks, their cells and their results."""
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


@migrations()
def m008_askings(db: Database) -> None:
    """Tables of the page Ask are called by its name. References follow a renamed table."""
    for what in ("questions", "columns", "answers", "alternatives"):
        db.conn.execute(f"alter table asked_{what} rename to asking_{what}")
    db.conn.execute("drop index asked_columns_by_state")
    db.conn.execute("create index asking_columns_by_state on asking_columns (state, served_at)")


@migrations()
def m009_spaces_of_processes(db: Database) -> None:
    """Which start of the machine and which container a process id is of: see storage/processes.py."""
    for table in ("workers", "servers", "devices"):
        db.conn.execute(f"alter table {table} add column space text not null default ''")


@migrations()
def m010_options_of_results(db: Database) -> None:
    """Among how many options a choice was, and what guessing would reach; null for what is no choice."""
    for column in ("options_least integer", "options_most integer", "chance real"):
        db.conn.execute(f"alter table results add column {column}")


@migrations()
def m011_recordings(db: Database) -> None:
    """Runs that were carried out elsewhere and came with the lab, and which of their files were taken in."""
    db.conn.execute("alter table runs add column recorded text")  # JSON: from which file, when, how, on which weights
    db.conn.execute("create index runs_recorded on runs (id) where recorded is not null")
    db.conn.execute(
        """create table recordings (
            name text primary key,             -- of the file; its runs may have been deleted since
            hash text not null,
            at text not null
        ) strict"""
    )


@migrations()
def m012_studies(db: Database) -> None:
    """Studies, whose runs are ordinary ones: `cell` says where one stands, `cell_place` in which order."""
    db.conn.execute(
        """create table studies (
            id text primary key,
            name text not null,
            plan text not null,                -- JSON: the study as it was described
            created_at text not null
        ) strict"""
    )
    db.conn.execute("alter table runs add column study text references studies (id) on delete set null")
    db.conn.execute("create index runs_by_study on runs (study, cell_place) where study is not null")
    db.conn.execute(
        """create table study_groups (
            study text not null references studies (id) on delete cascade,
            at text not null,                  -- JSON: the values of the axes but the seed's
            runs text not null,                -- JSON: which runs its figures are of, as `id at its end`
            primary key (study, at)
        ) strict, without rowid"""
    )
    db.conn.execute(
        """create table study_figures (
            study text not null,
            at text not null,
            depth integer not null,            -- of stage 1, in epochs
            kind text not null,                -- base, memorised or generalised
            facts text not null,               -- held_out or trained
            split text not null,
            language text not null,
            value real not null,
            low real not null,
            high real not null,
            unaided real not null,
            n integer not null,
            n_facts integer not null,
            seeds text not null,               -- JSON: {seed: {value, run}}
            primary key (study, kind, facts, split, language, at, depth),
            foreign key (study, at) references study_groups (study, at) on delete cascade
        ) strict, without rowid"""
    )


@migrations()
def m016_chance_of_study_figures(db: Database) -> None:
    """What guessing would reach in a study's multiple choices; null for other figures."""
    db.conn.execute("alter table study_figures add column chance real")


@migrations()
def m017_accounts(db: Database) -> None:
    """Who may sign in, where that is asked for: accounts, their sessions and tokens, and passwords that were wrong."""
    db.conn.execute(
        """create table users (
            id text primary key,
            name text not null unique collate nocase,
            password text not null,            -- hashed, as pwdlib writes it
            created_at text not null
        ) strict"""
    )
    for table, more in (("sessions", "agent text not null,"), ("tokens", "name text not null,")):
        db.conn.execute(
            f"""create table {table} (
                hash text primary key,         -- SHA-256 of the secret, which only its owner has
                user text not null references users (id) on delete cascade,
                {more}
                created_at text not null,
                used_at real not null,         -- seconds since 1970
                ends_at real                   -- the same; null: never
            ) strict"""
        )
        db.conn.execute(f"create index {table}_by_user on {table} (user)")
    db.conn.execute(
        """create table wrong_passwords (
            name text not null collate nocase,
            at real not null
        ) strict"""
    )
    db.conn.execute("create index wrong_passwords_by_time on wrong_passwords (at)")


@migrations()
def m018_accounts_of_providers(db: Database) -> None:
    """As whom an OpenID provider knows an account's owner: its issuer and the subject there; null with a password."""
    db.conn.execute("alter table users add column subject text")
    db.conn.execute("create unique index users_by_subject on users (subject)")


@migrations()
def m019_roles(db: Database) -> None:
    """What each account may do, what is whose, in which order runs wait, and an audit of changes."""
    # Before there were roles everybody who signed in could do everything.
    db.conn.execute("alter table users add column role text not null default 'runner'")
    db.conn.execute("update users set role = 'admin'")
    db.conn.execute("alter table users add column most_runs integer")  # waiting and running; null: any number
    db.conn.execute("alter table users add column most_bytes integer")  # of all their runs on the disk; null: any
    for table in ("runs", "attacks", "studies", "askings"):
        # null: of nobody's, or of somebody whose account is gone
        db.conn.execute(f"alter table {table} add column owner text references users (id) on delete set null")
        if table != "runs":
            db.conn.execute(f"create index {table}_by_owner on {table} (owner)")
    db.conn.execute("alter table runs add column priority integer not null default 0")
    db.conn.execute("alter table runs add column place real")  # among its owner's own; null: as they were started
    db.conn.execute("create index runs_by_owner_and_start on runs (owner, started_at)")
    db.conn.execute("create index runs_by_owner_and_state on runs (owner, state)")
    db.conn.execute(
        """create table audit (
            id integer primary key,
            at text not null,
            user text not null,                -- the account's id; it may be gone
            name text not null,                -- as it was called then
            act text not null,
            kind text not null,
            what text not null,
            about text not null
        ) strict"""
    )


@migrations()
def m020_turns(db: Database) -> None:
    """When each account was served last, whatever became of the run: one that is taken up again keeps the time at which
    it first started, and one that is deleted has none."""
    db.conn.execute(
        """create table turns (
            owner text primary key,            -- the account's id; empty: of what is nobody's
            at text not null
        ) strict"""
    )
    last = "select coalesce(owner, ''), max(started_at) from runs where started_at is not null group by 1"
    db.conn.execute(f"insert into turns {last}")
