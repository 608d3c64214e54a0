-- Schema 2 to 3: priorities of jobs, and models that do not run at present.

ALTER TABLE job ADD COLUMN priority TEXT NOT NULL DEFAULT 'normal'
  CHECK (priority IN ('urgent', 'normal', 'offpeak'));

CREATE TABLE hold (
  card   TEXT PRIMARY KEY,
  name   TEXT NOT NULL,
  reason TEXT NOT NULL,
  since  REAL NOT NULL
);
