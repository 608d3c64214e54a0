-- Schema 5 to 6: every look at storage commitment has an index, and requests that were told become short.

ALTER TABLE commitment ADD COLUMN asked INTEGER;
ALTER TABLE commitment ADD COLUMN digest TEXT;
DROP INDEX commitment_open;
CREATE INDEX commitment_by_state ON commitment (state, next_attempt_at);
CREATE INDEX commitment_in_full ON commitment (finished_at) WHERE digest IS NULL;
