-- Schema 1 to 2: facts of frames, and jobs of parts of a series. Run with foreign keys off.
-- Instances of before have no frames: the sweeper reads their facts anew where it needs them.

ALTER TABLE instance ADD COLUMN frames TEXT;

CREATE TABLE new_job (
  id               INTEGER PRIMARY KEY,
  series_id        INTEGER NOT NULL REFERENCES series (id),
  part             TEXT NOT NULL,
  input_digest     TEXT NOT NULL,
  model            TEXT NOT NULL,
  card             TEXT NOT NULL,
  destinations     TEXT NOT NULL,
  state            TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')),
  attempts         INTEGER NOT NULL DEFAULT 0,
  interruptions    INTEGER NOT NULL DEFAULT 0,
  lease_id         TEXT,
  lease_expires_at REAL,
  not_before       REAL NOT NULL,
  created_at       REAL NOT NULL,
  finished_at      REAL,
  failure_name     TEXT,
  failure_reason   TEXT,
  run              TEXT,
  UNIQUE (series_id, model, part)
);
-- What the worker reported says which instances a finished job was about. Another job has no digest, so
-- no later revision adopts it: it is superseded, as it was in schema 1.
INSERT INTO new_job (id, series_id, part, input_digest, model, card, destinations, state, attempts, interruptions,
                     lease_id, lease_expires_at, not_before, created_at, finished_at, failure_name, failure_reason, run)
SELECT id, series_id, '', coalesce(json_extract(run, '$.source.input_digest'), ''), model, card, destinations, state,
       attempts, interruptions, lease_id, lease_expires_at, not_before, created_at, finished_at, failure_name,
       failure_reason, run
FROM job;
DROP TABLE job;
ALTER TABLE new_job RENAME TO job;
CREATE INDEX job_queued ON job (not_before, id) WHERE state = 'queued';
CREATE INDEX job_running ON job (state) WHERE state = 'running';
