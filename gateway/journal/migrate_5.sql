-- Schema 4 to 5: storage commitment, instances that others took the place of, damaged files, counting by state.
-- Run with foreign keys off.

ALTER TABLE series ADD COLUMN committed_at REAL;
ALTER TABLE series ADD COLUMN committed_count INTEGER;
ALTER TABLE instance ADD COLUMN last_revision INTEGER;
ALTER TABLE instance ADD COLUMN quarantined_at REAL;

CREATE TABLE commitment (
  id              INTEGER PRIMARY KEY,
  source          TEXT NOT NULL,
  ae_title        TEXT NOT NULL,
  transaction_uid TEXT NOT NULL,
  instances       TEXT NOT NULL,
  state           TEXT NOT NULL CHECK (state IN ('pending', 'reporting', 'reported', 'dead')),
  attempts        INTEGER NOT NULL DEFAULT 0,
  next_attempt_at REAL NOT NULL,
  created_at      REAL NOT NULL,
  finished_at     REAL,
  outcome         TEXT,
  failure_name    TEXT,
  failure_reason  TEXT,
  UNIQUE (source, transaction_uid)
);
CREATE INDEX commitment_open ON commitment (state, next_attempt_at) WHERE state IN ('pending', 'reporting');

CREATE TABLE new_event (
  id         INTEGER PRIMARY KEY,
  at         REAL NOT NULL,
  subject    TEXT NOT NULL CHECK (subject IN ('gateway', 'association', 'instance', 'series', 'job', 'result', 'delivery', 'commitment')),
  subject_id INTEGER,
  name       TEXT NOT NULL,
  from_state TEXT,
  to_state   TEXT,
  reason     TEXT NOT NULL,
  details    TEXT NOT NULL DEFAULT '{}'
);
INSERT INTO new_event (id, at, subject, subject_id, name, from_state, to_state, reason, details)
  SELECT id, at, subject, subject_id, name, from_state, to_state, reason, details FROM event;
DROP TABLE event;
ALTER TABLE new_event RENAME TO event;
CREATE INDEX event_by_subject ON event (subject, subject_id);
CREATE INDEX refusal_told ON event (subject_id, json_extract(details, '$.sop_instance_uid'))
    WHERE name IN ('DUPLICATE_SOP_INSTANCE_REFUSED', 'DUPLICATE_TRANSFER_SYNTAX_REFUSED');

DROP INDEX series_receiving;
CREATE INDEX series_by_state ON series (state);
DROP INDEX job_queued;
DROP INDEX job_running;
CREATE INDEX job_by_state ON job (state);
DROP INDEX delivery_pending;
DROP INDEX delivery_sending;
CREATE INDEX delivery_by_state ON delivery (state, destination);
CREATE INDEX instance_damaged ON instance (id) WHERE quarantined_at IS NOT NULL;
CREATE INDEX instance_by_path ON instance (substr(path, 9, 10));
