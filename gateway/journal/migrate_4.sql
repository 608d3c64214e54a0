-- Schema 3 to 4: several results of one kind, profiles of destinations, reports of failures, series numbers of
-- our own. Run with foreign keys off.
-- What was written before has the default profile, whose settings then were those below. Which series numbers it
-- has is not recorded: a job with results and without a base has the configured one (numbers.py).

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
  priority         TEXT NOT NULL DEFAULT 'normal' CHECK (priority IN ('urgent', 'normal', 'offpeak')),
  purpose          TEXT NOT NULL DEFAULT 'run' CHECK (purpose IN ('run', 'failure_report')),
  profiles         TEXT NOT NULL DEFAULT '{}',
  series_number_base INTEGER,
  held             INTEGER NOT NULL DEFAULT 0,
  released_at      REAL,
  UNIQUE (series_id, model, part, purpose)
);
INSERT INTO new_job (id, series_id, part, input_digest, model, card, destinations, state, attempts, interruptions,
                     lease_id, lease_expires_at, not_before, created_at, finished_at, failure_name, failure_reason,
                     run, priority, held, profiles)
SELECT id, series_id, part, input_digest, model, card, destinations, state, attempts, interruptions, lease_id,
       lease_expires_at, not_before, created_at, finished_at, failure_name, failure_reason, run, priority,
       failure_name IS 'QUALITY_HOLD',
       CASE WHEN state = 'done' THEN '{"":{"segmentation":"binary","compression":"none","maximum_frames":null,'
         || '"maximum_segments":null,"when_over":"split","absent":"segment","report":true,"overview":true,'
         || '"rtstruct":false}}' ELSE '{}' END
FROM job;
DROP TABLE job;
ALTER TABLE new_job RENAME TO job;
CREATE INDEX job_queued ON job (not_before, id) WHERE state = 'queued';
CREATE INDEX job_running ON job (state) WHERE state = 'running';

CREATE TABLE new_result (
  id                  INTEGER PRIMARY KEY,
  job_id              INTEGER NOT NULL REFERENCES job (id),
  kind                TEXT NOT NULL,
  number              INTEGER NOT NULL,
  profiles            TEXT NOT NULL,
  sop_class_uid       TEXT NOT NULL,
  sop_instance_uid    TEXT NOT NULL UNIQUE,
  series_instance_uid TEXT NOT NULL,
  transfer_syntax_uid TEXT NOT NULL,
  path                TEXT NOT NULL,
  digest              TEXT NOT NULL,
  size_bytes          INTEGER NOT NULL,
  created_at          REAL NOT NULL
);
INSERT INTO new_result (id, job_id, kind, number, profiles, sop_class_uid, sop_instance_uid, series_instance_uid,
                        transfer_syntax_uid, path, digest, size_bytes, created_at)
SELECT id, job_id, kind, 1, '[""]', sop_class_uid, sop_instance_uid, series_instance_uid, transfer_syntax_uid, path,
       digest, size_bytes, created_at
FROM result;
DROP TABLE result;
ALTER TABLE new_result RENAME TO result;
CREATE INDEX result_by_series ON result (series_instance_uid);
CREATE INDEX result_by_job ON result (job_id);
