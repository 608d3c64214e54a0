-- The journal: the only truth about what arrived, what was decided and what was sent.
-- States and their edges are those of gateway/states.py. Times are seconds since 1970 UTC.

CREATE TABLE series (                    -- one revision of one series
  id                  INTEGER PRIMARY KEY,
  study_instance_uid  TEXT NOT NULL,
  series_instance_uid TEXT NOT NULL,
  revision            INTEGER NOT NULL,  -- late instances open the next one
  state               TEXT NOT NULL CHECK (state IN ('receiving', 'complete', 'routed', 'unmatched', 'refused')),
  source              TEXT NOT NULL,     -- name of the peer that sent the newest instance
  instance_count      INTEGER NOT NULL,
  opened_at           REAL NOT NULL,
  last_instance_at    REAL NOT NULL,
  decided_at          REAL,
  evidence            TEXT,              -- JSON: why it counts as complete
  verdict             TEXT,              -- JSON: geometry code, reason, numbers
  decision            TEXT,              -- JSON: routes with every condition, model, destinations
  committed_at        REAL,              -- when the source asked for storage commitment of all its instances
  committed_count     INTEGER,           -- how many they were then: with a later one, the request says nothing
  UNIQUE (study_instance_uid, series_instance_uid, revision)
);
CREATE UNIQUE INDEX series_one_receiving ON series (study_instance_uid, series_instance_uid)
  WHERE state = 'receiving';
CREATE INDEX series_by_state ON series (state);

CREATE TABLE instance (                  -- one stored file; no row is ever deleted
  id                  INTEGER PRIMARY KEY,
  sop_instance_uid    TEXT NOT NULL,
  digest              TEXT NOT NULL,     -- SHA-256 of the data set as received
  sop_class_uid       TEXT NOT NULL,
  transfer_syntax_uid TEXT NOT NULL,
  study_instance_uid  TEXT NOT NULL,
  series_instance_uid TEXT NOT NULL,
  first_revision      INTEGER NOT NULL,  -- member of this revision of its series and all later ones
  last_revision       INTEGER,           -- member up to this one, where other bytes took its place; else NULL.
                                         -- Smaller than the first: they did before any was decided
  role                TEXT NOT NULL CHECK (role IN ('member', 'conflict')),  -- conflict: same UID, other bytes
  path                TEXT NOT NULL,     -- below the spool
  size_bytes          INTEGER NOT NULL,
  facts               TEXT NOT NULL,     -- JSON: header facts for rules and geometry
  frames              TEXT,              -- JSON: the facts of each frame, for enhanced multi-frame images;
                                         -- NULL: entered by schema 1, whose facts are fewer
  source              TEXT NOT NULL,
  received_at         REAL NOT NULL,
  copies              INTEGER NOT NULL DEFAULT 1,  -- how often the same bytes arrived
  quarantined_at      REAL,              -- its file was found damaged or gone; NULL: it is as it was received
  UNIQUE (sop_instance_uid, digest)
);
CREATE INDEX instance_by_series ON instance (study_instance_uid, series_instance_uid, first_revision);
CREATE INDEX instance_damaged ON instance (id) WHERE quarantined_at IS NOT NULL;
CREATE INDEX instance_by_path ON instance (substr(path, 9, 10));  -- short: it has no order, and is in every commit

CREATE TABLE job (                       -- one model run on one part of a series revision, or the report that it failed
  id               INTEGER PRIMARY KEY,
  series_id        INTEGER NOT NULL REFERENCES series (id),  -- a later revision may adopt it
  part             TEXT NOT NULL,        -- key of the sub-volume; empty when the series is one volume
  input_digest     TEXT NOT NULL,        -- of the images of the part: with the same one, no second run
  model            TEXT NOT NULL,        -- name in the configuration
  card             TEXT NOT NULL,
  destinations     TEXT NOT NULL,        -- JSON list; empty in shadow mode
  state            TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')),
  attempts         INTEGER NOT NULL DEFAULT 0,      -- counted when claimed
  interruptions    INTEGER NOT NULL DEFAULT 0,      -- restarts of the gateway while it was running
  lease_id         TEXT,
  lease_expires_at REAL,
  not_before       REAL NOT NULL,
  created_at       REAL NOT NULL,
  finished_at      REAL,
  failure_name     TEXT,
  failure_reason   TEXT,
  run              TEXT,                 -- JSON: what the worker reported
  priority         TEXT NOT NULL DEFAULT 'normal' CHECK (priority IN ('urgent', 'normal', 'offpeak')),
  purpose          TEXT NOT NULL DEFAULT 'run' CHECK (purpose IN ('run', 'failure_report')),
  profiles         TEXT NOT NULL DEFAULT '{}',  -- JSON: key of each profile whose results are written -> its settings
  series_number_base INTEGER,            -- of its results, its own in the study; NULL until it is claimed
  held             INTEGER NOT NULL DEFAULT 0,  -- 1: its results are kept here until a person releases them
  released_at      REAL,                 -- when a person did
  UNIQUE (series_id, model, part, purpose)
);
CREATE INDEX job_by_state ON job (state);

CREATE TABLE hold (                      -- a model that does not run at present: its jobs wait
  card   TEXT PRIMARY KEY,
  name   TEXT NOT NULL,                  -- MODEL_SWITCHED_OFF, MODEL_FILE_CHANGED …
  reason TEXT NOT NULL,
  since  REAL NOT NULL
);

CREATE TABLE result (                    -- one encoded object, stored before it is sent
  id                  INTEGER PRIMARY KEY,
  job_id              INTEGER NOT NULL REFERENCES job (id),
  kind                TEXT NOT NULL,     -- seg, sr, overview, rtstruct
  number              INTEGER NOT NULL,  -- Instance Number: segmentations can be several
  profiles            TEXT NOT NULL,     -- JSON list: keys of the profiles that it belongs to; "" is the default one
  sop_class_uid       TEXT NOT NULL,
  sop_instance_uid    TEXT NOT NULL UNIQUE,
  series_instance_uid TEXT NOT NULL,
  transfer_syntax_uid TEXT NOT NULL,
  path                TEXT NOT NULL,     -- below the results folder
  digest              TEXT NOT NULL,     -- SHA-256 of the file
  size_bytes          INTEGER NOT NULL,
  created_at          REAL NOT NULL
);
CREATE INDEX result_by_series ON result (series_instance_uid);
CREATE INDEX result_by_job ON result (job_id);

CREATE TABLE delivery (                  -- the outbox: one result for one destination
  id              INTEGER PRIMARY KEY,
  result_id       INTEGER NOT NULL REFERENCES result (id),
  destination     TEXT NOT NULL,         -- name of the peer
  state           TEXT NOT NULL CHECK (state IN ('pending', 'sending', 'sent', 'dead')),
  attempts        INTEGER NOT NULL DEFAULT 0,
  next_attempt_at REAL NOT NULL,
  created_at      REAL NOT NULL,
  finished_at     REAL,
  failure_name    TEXT,
  failure_reason  TEXT,
  UNIQUE (result_id, destination)
);
CREATE INDEX delivery_by_state ON delivery (state, destination);

CREATE TABLE commitment (                -- a request for storage commitment, and what it was told
  id              INTEGER PRIMARY KEY,
  source          TEXT NOT NULL,         -- name of the peer that asked
  ae_title        TEXT NOT NULL,         -- under which it asked
  transaction_uid TEXT NOT NULL,
  instances       TEXT NOT NULL,         -- JSON: [[SOP Class UID, SOP Instance UID], …] in the order of the request;
                                         -- empty some days after it was told, or given up
  state           TEXT NOT NULL CHECK (state IN ('pending', 'reporting', 'reported', 'dead')),
  attempts        INTEGER NOT NULL DEFAULT 0,
  next_attempt_at REAL NOT NULL,
  created_at      REAL NOT NULL,
  finished_at     REAL,
  outcome         TEXT,                  -- JSON: what was reported: committed (a number), failed [[class, instance, reason], …]
  failure_name    TEXT,
  failure_reason  TEXT,
  asked           INTEGER,               -- how many instances there were, where they are empty
  digest          TEXT,                  -- SHA-256 of them, sorted: whether the same is asked for again
  UNIQUE (source, transaction_uid)
);
-- Not partial: SQLite does not see that a condition on one state implies one on several.
CREATE INDEX commitment_by_state ON commitment (state, next_attempt_at);
CREATE INDEX commitment_in_full ON commitment (finished_at) WHERE digest IS NULL;

CREATE TABLE event (                     -- what happened and why, in order; never changed
  id         INTEGER PRIMARY KEY,
  at         REAL NOT NULL,
  subject    TEXT NOT NULL CHECK (subject IN ('gateway', 'association', 'instance', 'series', 'job', 'result', 'delivery', 'commitment')),
  subject_id INTEGER,                    -- row of the subject's table, if it has one
  name       TEXT NOT NULL,
  from_state TEXT,
  to_state   TEXT,
  reason     TEXT NOT NULL,
  details    TEXT NOT NULL DEFAULT '{}'  -- JSON
);
CREATE INDEX event_by_subject ON event (subject, subject_id);
CREATE INDEX refusal_told ON event (subject_id, json_extract(details, '$.sop_instance_uid'))
    WHERE name IN ('DUPLICATE_SOP_INSTANCE_REFUSED', 'DUPLICATE_TRANSFER_SYNTAX_REFUSED');
