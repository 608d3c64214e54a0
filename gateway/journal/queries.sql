-- Every statement of the journal, by name. The loader is in statements.py.

-- name: insert_event
INSERT INTO event (at, subject, subject_id, name, from_state, to_state, reason, details)
VALUES (:at, :subject, :subject_id, :name, :from_state, :to_state, :reason, :details);

-- name: insert_next
INSERT INTO instance (sop_instance_uid, digest, sop_class_uid, transfer_syntax_uid, study_instance_uid,
                      series_instance_uid, first_revision, role, path, size_bytes, facts, frames, source, received_at)
SELECT :sop_instance_uid, :digest, :sop_class_uid, :transfer_syntax_uid, study_instance_uid,
       series_instance_uid, revision, 'member', :path, :size_bytes, :facts, :frames, :source, :at
FROM series
WHERE study_instance_uid = :study_instance_uid AND series_instance_uid = :series_instance_uid
  AND state = 'receiving' AND NOT EXISTS (SELECT 1 FROM instance WHERE sop_instance_uid = :sop_instance_uid);

-- name: grow_receiving
UPDATE series SET instance_count = instance_count + 1, last_instance_at = :at, source = :source
WHERE study_instance_uid = :study_instance_uid AND series_instance_uid = :series_instance_uid
  AND state = 'receiving';

-- name: same_and_member
-- What is known of a SOP Instance UID: the row with these bytes, and the member.
SELECT id, digest, role, transfer_syntax_uid, study_instance_uid, series_instance_uid, quarantined_at,
       role = 'member' AND last_revision IS NULL AS is_member
FROM instance
WHERE sop_instance_uid = :sop_instance_uid AND (digest = :digest OR role = 'member' AND last_revision IS NULL);

-- name: told_refusal
-- A try before this one of the same sender; the names stand here as in the index.
SELECT 1 FROM event WHERE subject_id = :series_id AND json_extract(details, '$.sop_instance_uid') = :sop_instance_uid
AND name IN ('DUPLICATE_SOP_INSTANCE_REFUSED', 'DUPLICATE_TRANSFER_SYNTAX_REFUSED')
AND subject = 'series' AND name = :name AND json_extract(details, '$.source') = :source LIMIT 1;

-- name: count_copy
-- A file that was written anew has the file meta information that came with it.
UPDATE instance SET copies = copies + 1, size_bytes = :size_bytes WHERE id = :id;

-- name: end_membership
UPDATE instance SET last_revision = :last_revision WHERE id = :id;

-- name: begin_membership
UPDATE instance SET role = 'member', first_revision = :first_revision WHERE id = :id;

-- name: newest_revision
SELECT id, revision, state FROM series
WHERE study_instance_uid = :study_instance_uid AND series_instance_uid = :series_instance_uid
ORDER BY revision DESC LIMIT 1;

-- name: open_revision
INSERT INTO series (study_instance_uid, series_instance_uid, revision, state, source, instance_count,
                    opened_at, last_instance_at)
VALUES (:study_instance_uid, :series_instance_uid, :revision, 'receiving', :source,
        (SELECT count(*) FROM instance WHERE study_instance_uid = :study_instance_uid
         AND series_instance_uid = :series_instance_uid AND role = 'member' AND last_revision IS NULL),
        :at, :at);

-- name: grow_series
UPDATE series SET instance_count = instance_count + 1, last_instance_at = :at, source = :source WHERE id = :id;

-- name: change_series
-- One instance took the place of another. The time always moves on: a decision that was made meanwhile sees it.
UPDATE series SET last_instance_at = max(:at, last_instance_at + 0.000001), source = :source WHERE id = :id;

-- name: insert_instance
INSERT INTO instance (sop_instance_uid, digest, sop_class_uid, transfer_syntax_uid, study_instance_uid,
                      series_instance_uid, first_revision, role, path, size_bytes, facts, frames, source, received_at)
VALUES (:sop_instance_uid, :digest, :sop_class_uid, :transfer_syntax_uid, :study_instance_uid,
        :series_instance_uid, :first_revision, :role, :path, :size_bytes, :facts, :frames, :source, :at);

-- name: receiving_series
SELECT id, study_instance_uid, series_instance_uid, revision, source, instance_count, opened_at, last_instance_at,
       committed_at, committed_count
FROM series WHERE state = 'receiving' ORDER BY id;

-- name: members_of_series
SELECT instance.sop_instance_uid, instance.digest, instance.sop_class_uid, instance.transfer_syntax_uid,
       instance.path, instance.size_bytes, instance.facts, instance.frames,
       instance.quarantined_at IS NOT NULL AS is_damaged
FROM instance JOIN series USING (study_instance_uid, series_instance_uid)
WHERE series.id = :series_id AND instance.role = 'member' AND instance.first_revision <= series.revision
  AND (instance.last_revision IS NULL OR instance.last_revision >= series.revision)
ORDER BY instance.id;

-- name: lock_series_count
SELECT 1 FROM series WHERE id = :id AND instance_count = :instance_count AND last_instance_at = :last_instance_at;

-- name: record_decision
UPDATE series SET evidence = :evidence, verdict = :verdict, decision = :decision, decided_at = :at WHERE id = :id;

-- name: insert_job
INSERT INTO job (series_id, part, input_digest, model, card, destinations, state, not_before, created_at, priority,
                 purpose)
VALUES (:series_id, :part, :input_digest, :model, :card, :destinations, 'queued', :at, :at, :priority, :purpose);

-- name: job_on_same_input
-- Of earlier revisions, the newest. What was superseded was not finished, so it is no job to take over.
SELECT job.*, series.revision FROM job JOIN series ON series.id = job.series_id
WHERE series.study_instance_uid = :study_instance_uid AND series.series_instance_uid = :series_instance_uid
  AND series.revision < :revision AND job.card = :card AND job.purpose = 'run'
  AND job.input_digest = :input_digest AND job.failure_name IS NOT 'SUPERSEDED'
ORDER BY series.revision DESC, job.id LIMIT 1;

-- name: adopt_job
UPDATE job SET series_id = :series_id, part = :part, model = :model, destinations = :destinations,
               priority = :priority WHERE id = :id;

-- name: failure_report_of
SELECT job.*, series.revision FROM job JOIN series ON series.id = job.series_id
WHERE job.series_id = :series_id AND job.model = :model AND job.part = :part AND job.purpose = 'failure_report';

-- name: results_without_delivery
SELECT id, kind, number FROM result WHERE job_id = :job_id AND NOT EXISTS (
  SELECT 1 FROM delivery WHERE delivery.result_id = result.id AND delivery.destination = :destination)
AND EXISTS (SELECT 1 FROM json_each(result.profiles) WHERE value = :profile)
ORDER BY id;

-- name: superseded_deliveries
SELECT delivery.id FROM delivery JOIN result ON result.id = delivery.result_id
WHERE result.job_id = :job_id AND delivery.destination = :destination
  AND delivery.state = 'dead' AND delivery.failure_name = 'SUPERSEDED'
  AND EXISTS (SELECT 1 FROM json_each(result.profiles) WHERE value = :profile) ORDER BY delivery.id;

-- name: reopen_delivery
UPDATE delivery SET next_attempt_at = :at, finished_at = NULL, failure_name = NULL, failure_reason = NULL WHERE id = :id;

-- name: next_queued_job
-- A row that waits for longer than anything may wait was written before the clock was set back.
-- While a later revision is being received, it is not known yet whether this job is still wanted.
-- What is off-peak is as good as normal after a while; nothing but the oldest-first turn goes before what is urgent.
SELECT job.id FROM job JOIN series ON series.id = job.series_id
WHERE job.state = 'queued' AND (job.not_before <= :at OR job.not_before > :at + :longest_wait_s) AND NOT EXISTS (
  SELECT 1 FROM series AS newer WHERE newer.study_instance_uid = series.study_instance_uid
    AND newer.series_instance_uid = series.series_instance_uid AND newer.revision > series.revision)
AND (job.card NOT IN (SELECT value FROM json_each(:except_cards)) OR job.purpose = 'failure_report')
AND (job.priority = 'urgent' OR NOT :only_urgent)
ORDER BY CASE WHEN :oldest_first OR job.priority = 'urgent' THEN 0
              WHEN job.priority = 'normal' OR job.created_at <= :at - :offpeak_ages_s THEN 1
              ELSE 2 END, job.id
LIMIT 1;

-- name: holds
SELECT card, name, reason, since FROM hold ORDER BY card;

-- name: insert_hold
INSERT INTO hold (card, name, reason, since) VALUES (:card, :name, :reason, :at);

-- name: delete_all_holds
DELETE FROM hold;

-- name: delete_hold
DELETE FROM hold WHERE card = :card;

-- name: outdated_jobs
SELECT job.id, job.profiles, series.revision, newer.revision AS newest_revision
FROM job JOIN series ON series.id = job.series_id
JOIN series AS newer ON newer.study_instance_uid = series.study_instance_uid
  AND newer.series_instance_uid = series.series_instance_uid AND newer.revision = series.revision + 1
WHERE job.state = 'queued' AND newer.state <> 'receiving' ORDER BY job.id;

-- name: newer_revision
SELECT series.revision, newer.revision AS newest_revision
FROM job JOIN series ON series.id = job.series_id
JOIN series AS newer ON newer.study_instance_uid = series.study_instance_uid
  AND newer.series_instance_uid = series.series_instance_uid AND newer.revision = series.revision + 1
WHERE job.id = :id AND newer.state <> 'receiving';

-- name: take_lease
UPDATE job SET attempts = attempts + 1, lease_id = :lease_id, lease_expires_at = :lease_expires_at WHERE id = :id;

-- name: job_to_run
SELECT job.id, job.series_id, job.part, job.model, job.card, job.attempts, job.interruptions, job.created_at,
       job.priority, job.destinations, job.profiles, job.purpose, series.study_instance_uid,
       series.series_instance_uid, series.revision, failed.failure_name, failed.failure_reason
FROM job JOIN series ON series.id = job.series_id
LEFT JOIN job AS failed ON job.purpose = 'failure_report' AND failed.purpose = 'run'
  AND failed.series_id = job.series_id AND failed.model = job.model AND failed.part = job.part
WHERE job.id = :id;

-- name: bases_in_study
-- A job that older versions ran has no base of its own; jobs that have written nothing have none yet.
SELECT job.id, job.part, job.card, job.series_number_base AS base, series.series_instance_uid, series.revision
FROM job JOIN series ON series.id = job.series_id
WHERE series.study_instance_uid = :study_instance_uid
  AND (job.series_number_base IS NOT NULL OR EXISTS (SELECT 1 FROM result WHERE result.job_id = job.id))
ORDER BY series.revision DESC, job.id DESC;

-- name: first_facts_in_study
SELECT facts FROM instance WHERE id IN (
  SELECT min(id) FROM instance WHERE study_instance_uid = :study_instance_uid GROUP BY series_instance_uid);

-- name: set_base
UPDATE job SET series_number_base = :base WHERE id = :id;

-- name: reports_of_earlier_revisions
-- Those that a destination has, or gets; the newest first.
SELECT earlier.study_instance_uid, result.series_instance_uid, result.sop_class_uid, result.sop_instance_uid,
       result.profiles
FROM job JOIN series ON series.id = job.series_id
JOIN series AS earlier ON earlier.study_instance_uid = series.study_instance_uid
  AND earlier.series_instance_uid = series.series_instance_uid AND earlier.revision < series.revision
JOIN job AS older ON older.series_id = earlier.id AND older.card = job.card AND older.part = job.part
JOIN result ON result.job_id = older.id AND result.kind = 'sr'
WHERE job.id = :id AND EXISTS (
  SELECT 1 FROM delivery WHERE delivery.result_id = result.id AND (delivery.state IN ('sending', 'sent')
    OR delivery.state = 'pending' AND EXISTS (
      SELECT 1 FROM delivery AS other JOIN result AS sibling ON sibling.id = other.result_id
      WHERE sibling.job_id = older.id AND other.destination = delivery.destination
        AND other.state IN ('sending', 'sent'))))
ORDER BY earlier.revision DESC, result.id DESC;

-- name: renew_lease
UPDATE job SET lease_expires_at = :lease_expires_at WHERE id = :id AND lease_id = :lease_id AND state = 'running';

-- name: job_under_lease
SELECT * FROM job WHERE id = :id AND lease_id = :lease_id AND state = 'running';

-- name: running_jobs
SELECT id, lease_id, attempts, interruptions FROM job WHERE state = 'running';

-- name: release_lease
UPDATE job SET lease_id = NULL, lease_expires_at = NULL, not_before = :not_before,
               failure_name = :failure_name, failure_reason = :failure_reason WHERE id = :id;

-- name: refund_attempt
UPDATE job SET attempts = attempts - 1, interruptions = interruptions + 1 WHERE id = :id;

-- name: close_job
-- A run that comes to nothing leaves what is said of an earlier one, whose results are kept.
UPDATE job SET lease_id = NULL, lease_expires_at = NULL, finished_at = :at, run = coalesce(:run, run),
               failure_name = :failure_name, failure_reason = :failure_reason WHERE id = :id;

-- name: set_profiles
UPDATE job SET profiles = :profiles WHERE id = :id;

-- name: reopen_job
UPDATE job SET attempts = 0, not_before = :at, finished_at = NULL WHERE id = :id;

-- name: insert_result
INSERT INTO result (job_id, kind, number, profiles, sop_class_uid, sop_instance_uid, series_instance_uid,
                    transfer_syntax_uid, path, digest, size_bytes, created_at)
VALUES (:job_id, :kind, :number, :profiles, :sop_class_uid, :sop_instance_uid, :series_instance_uid,
        :transfer_syntax_uid, :path, :digest, :size_bytes, :at);

-- name: result_of_job_with_uid
SELECT id, profiles FROM result WHERE job_id = :job_id AND sop_instance_uid = :sop_instance_uid;

-- name: set_result_profiles
UPDATE result SET profiles = :profiles WHERE id = :id;

-- name: job_by_id
SELECT job.*, series.study_instance_uid, series.series_instance_uid, series.revision,
       (SELECT max(newer.revision) FROM series AS newer WHERE newer.study_instance_uid = series.study_instance_uid
         AND newer.series_instance_uid = series.series_instance_uid) AS newest_revision
FROM job JOIN series ON series.id = job.series_id WHERE job.id = :id;

-- name: hold_results
UPDATE job SET held = :held WHERE id = :id;

-- name: release_results
UPDATE job SET held = 0, released_at = :at, failure_name = NULL, failure_reason = NULL WHERE id = :id;

-- name: discard_results
UPDATE job SET failure_name = :failure_name, failure_reason = :failure_reason WHERE id = :id;

-- name: deliveries_to_resend
SELECT delivery.id, delivery.state FROM delivery JOIN result ON result.id = delivery.result_id
WHERE result.job_id = :job_id AND delivery.state IN ('dead', 'sent')
  AND (:destination = '' OR delivery.destination = :destination) ORDER BY delivery.id;

-- name: resend_delivery
-- A person has looked at it: it is given as long as a new one.
UPDATE delivery SET attempts = 0, next_attempt_at = :at, created_at = :at, finished_at = NULL, failure_name = NULL,
                    failure_reason = NULL WHERE id = :id;

-- name: waiting_for_a_person
-- Of the newest revisions: results that are held, and deliveries that were given up.
SELECT job.id AS job, job.model, job.card, job.part, job.purpose, job.failure_name, job.failure_reason,
       job.finished_at, job.destinations, job.held, series.study_instance_uid, series.series_instance_uid, series.revision,
       (SELECT count(*) FROM delivery JOIN result ON result.id = delivery.result_id
        WHERE result.job_id = job.id AND delivery.state = 'dead' AND delivery.failure_name IS NOT 'SUPERSEDED') AS dead
FROM job JOIN series ON series.id = job.series_id
WHERE (job.held AND job.failure_name IS NOT 'RESULTS_DISCARDED' OR dead > 0)
  AND NOT EXISTS (SELECT 1 FROM series AS newer WHERE newer.study_instance_uid = series.study_instance_uid
    AND newer.series_instance_uid = series.series_instance_uid AND newer.revision > series.revision
    AND newer.state <> 'receiving')
ORDER BY job.id;

-- name: insert_delivery
INSERT INTO delivery (result_id, destination, state, next_attempt_at, created_at)
VALUES (:result_id, :destination, 'pending', :at, :at);

-- name: next_delivery
-- As for jobs: a clock that was set back must not hold the outbox, and results of a series that is being received
-- again wait. Of a result set that the destination has in part, the rest is still sent.
SELECT delivery.id FROM delivery JOIN result ON result.id = delivery.result_id JOIN job ON job.id = result.job_id
JOIN series ON series.id = job.series_id
WHERE delivery.state = 'pending' AND delivery.destination = :destination
AND (delivery.next_attempt_at <= :at OR delivery.next_attempt_at > :at + :longest_wait_s)
AND (NOT EXISTS (
  SELECT 1 FROM series AS newer WHERE newer.study_instance_uid = series.study_instance_uid
    AND newer.series_instance_uid = series.series_instance_uid AND newer.revision > series.revision)
  OR EXISTS (
  SELECT 1 FROM delivery AS other JOIN result AS sibling ON sibling.id = other.result_id
  WHERE sibling.job_id = job.id AND other.destination = delivery.destination AND other.state IN ('sending', 'sent')))
ORDER BY delivery.id LIMIT 1;

-- name: outdated_deliveries
-- Of a result set that the destination has in part, the rest is still sent.
SELECT delivery.id, series.revision, newer.revision AS newest_revision
FROM delivery JOIN result ON result.id = delivery.result_id JOIN job ON job.id = result.job_id
JOIN series ON series.id = job.series_id
JOIN series AS newer ON newer.study_instance_uid = series.study_instance_uid
  AND newer.series_instance_uid = series.series_instance_uid AND newer.revision = series.revision + 1
WHERE delivery.state = 'pending' AND delivery.destination = :destination AND newer.state <> 'receiving'
AND NOT EXISTS (
  SELECT 1 FROM delivery AS other JOIN result AS sibling ON sibling.id = other.result_id
  WHERE sibling.job_id = job.id AND other.destination = delivery.destination AND other.state IN ('sending', 'sent'))
ORDER BY delivery.id;

-- name: waiting_deliveries
SELECT destination, count(*) AS n FROM delivery WHERE state = 'pending' GROUP BY destination ORDER BY destination;

-- name: count_attempt
UPDATE delivery SET attempts = attempts + 1 WHERE id = :id;

-- name: delivery_to_send
SELECT delivery.id, delivery.destination, delivery.attempts, delivery.created_at, result.kind, result.sop_class_uid,
       result.sop_instance_uid, result.transfer_syntax_uid, result.path, result.digest
FROM delivery JOIN result ON result.id = delivery.result_id WHERE delivery.id = :id;

-- name: sending_deliveries
SELECT id FROM delivery WHERE state = 'sending';

-- name: postpone_delivery
UPDATE delivery SET next_attempt_at = :next_attempt_at, failure_name = :failure_name,
                    failure_reason = :failure_reason WHERE id = :id;

-- name: close_delivery
UPDATE delivery SET finished_at = :at, failure_name = :failure_name, failure_reason = :failure_reason WHERE id = :id;

-- name: is_own_result_series
SELECT 1 FROM result WHERE series_instance_uid = :series_instance_uid LIMIT 1;

-- name: paths_between
SELECT path, quarantined_at IS NOT NULL AS is_quarantined FROM instance
WHERE substr(path, 9, 10) >= substr(:first, 9, 10) AND substr(path, 9, 10) < substr(:first, 9, 10) || char(1114111)
  AND path >= :first AND path < :first || char(1114111) ORDER BY path;

-- name: instances_at_path
SELECT id, sop_instance_uid, transfer_syntax_uid, quarantined_at FROM instance
WHERE substr(path, 9, 10) = substr(:path, 9, 10) AND +path = :path;

-- name: quarantine_instance
UPDATE instance SET quarantined_at = :at WHERE id = :id AND quarantined_at IS NULL;

-- name: heal_instance
UPDATE instance SET quarantined_at = NULL WHERE id = :id AND quarantined_at IS NOT NULL;

-- name: jobs_that_lacked_instance
-- Those of the newest revision of its series, if every member of that is whole.
SELECT job.id FROM instance
JOIN series USING (study_instance_uid, series_instance_uid)
JOIN job ON job.series_id = series.id
WHERE instance.id = :id AND instance.role = 'member' AND instance.first_revision <= series.revision
  AND (instance.last_revision IS NULL OR instance.last_revision >= series.revision)
  AND job.state = 'failed' AND job.purpose = 'run' AND job.failure_name IN (:damaged, :missing)
  AND NOT EXISTS (
    SELECT 1 FROM series AS newer WHERE newer.study_instance_uid = series.study_instance_uid
      AND newer.series_instance_uid = series.series_instance_uid AND newer.revision > series.revision)
  AND NOT EXISTS (
    SELECT 1 FROM instance AS other WHERE other.study_instance_uid = series.study_instance_uid
      AND other.series_instance_uid = series.series_instance_uid AND other.role = 'member'
      AND other.first_revision <= series.revision
      AND (other.last_revision IS NULL OR other.last_revision >= series.revision)
      AND other.quarantined_at IS NOT NULL)
ORDER BY job.id;

-- name: known_result_paths
SELECT path FROM result;

-- name: series_counts
SELECT state, count(*) AS n FROM series GROUP BY state;

-- name: job_counts
SELECT state, count(*) AS n FROM job GROUP BY state;

-- name: delivery_counts
SELECT state, count(*) AS n FROM delivery GROUP BY state;

-- name: instance_count
-- No row of this table is ever deleted.
SELECT coalesce(max(id), 0) AS n FROM instance;

-- name: damaged_count
-- Where others took its place, it is not needed.
SELECT count(*) AS n FROM instance WHERE quarantined_at IS NOT NULL AND last_revision IS NULL;

-- name: received_by_source
SELECT source, sum(instance_count) AS instances, max(last_instance_at) AS last_instance_at
FROM series GROUP BY source ORDER BY source;

-- name: list_series
SELECT id, study_instance_uid, series_instance_uid, revision, state, source, instance_count, opened_at,
       last_instance_at, decided_at, evidence, verdict, decision
FROM series ORDER BY opened_at, id;

-- name: first_facts_of_series
-- Of a member, where there is one.
SELECT facts FROM (SELECT facts FROM instance WHERE study_instance_uid = :study_instance_uid
  AND series_instance_uid = :series_instance_uid AND role = 'member' AND last_revision IS NULL
  ORDER BY first_revision, id LIMIT 1)
UNION ALL
SELECT facts FROM (SELECT facts FROM instance WHERE study_instance_uid = :study_instance_uid
  AND series_instance_uid = :series_instance_uid ORDER BY first_revision, id LIMIT 1)
LIMIT 1;

-- name: conflicts_of_revision
-- Bytes that were kept and are not used in this revision, or not any more.
SELECT sop_instance_uid, digest, received_at, copies, role, last_revision FROM instance
WHERE study_instance_uid = :study_instance_uid AND series_instance_uid = :series_instance_uid
  AND first_revision <= :revision AND (role = 'conflict' OR last_revision < :revision) ORDER BY id;

-- name: copies_of_series
SELECT count(*) AS instances, coalesce(sum(copies - 1), 0) AS times FROM instance
WHERE study_instance_uid = :study_instance_uid AND series_instance_uid = :series_instance_uid AND copies > 1;

-- name: damaged_in_series
SELECT id, sop_instance_uid, quarantined_at FROM instance WHERE study_instance_uid = :study_instance_uid
AND series_instance_uid = :series_instance_uid AND quarantined_at IS NOT NULL ORDER BY id;

-- name: jobs_of_series
SELECT job.id, purpose, part, input_digest, model, job.card, destinations, state, priority, attempts, interruptions,
       created_at, finished_at, failure_name, failure_reason, held, released_at, series_number_base, profiles, run,
       CASE WHEN state = 'queued' AND purpose = 'run' THEN hold.name END AS hold_name,
       CASE WHEN state = 'queued' AND purpose = 'run' THEN hold.reason END AS hold_reason
FROM job LEFT JOIN hold ON hold.card = job.card WHERE series_id = :series_id ORDER BY job.id;

-- name: results_of_job
SELECT id, kind, number, profiles, sop_class_uid, sop_instance_uid, series_instance_uid, transfer_syntax_uid, path,
       digest, size_bytes
FROM result WHERE job_id = :job_id ORDER BY id;

-- name: deliveries_of_result
SELECT id, destination, state, attempts, next_attempt_at, finished_at, failure_name, failure_reason
FROM delivery WHERE result_id = :result_id ORDER BY id;

-- name: events_of
SELECT at, subject, subject_id, name, from_state, to_state, reason, details FROM event
WHERE subject = :subject AND subject_id = :subject_id ORDER BY id;

-- name: refusals
-- The plus sign keeps the index on the subjects in use: other events are far more.
SELECT at, subject, subject_id, name, from_state, to_state, reason, details FROM event
WHERE subject IN (SELECT value FROM json_each(:subjects)) AND subject_id IS NULL ORDER BY +id DESC LIMIT :limit;

-- name: forget_events
-- Of those without a row, all but the newest.
DELETE FROM event WHERE subject = :subject AND subject_id IS NULL AND id <= (
  SELECT id FROM event WHERE subject = :subject AND subject_id IS NULL ORDER BY id DESC LIMIT 1 OFFSET :kept);

-- Storage commitment.

-- name: instances_with_uids
SELECT sop_instance_uid, sop_class_uid, study_instance_uid, series_instance_uid, path, size_bytes,
       quarantined_at IS NOT NULL AS is_quarantined, role = 'member' AND last_revision IS NULL AS is_member
FROM instance WHERE sop_instance_uid IN (SELECT value FROM json_each(:uids)) ORDER BY id;

-- name: refused_duplicates
-- CROSS JOIN: the series first, then its own events; the planner would begin with those of all series.
SELECT json_extract(event.details, '$.sop_instance_uid') AS sop_instance_uid
FROM series CROSS JOIN event ON event.subject = 'series' AND event.subject_id = series.id
WHERE study_instance_uid = :study_instance_uid AND series_instance_uid = :series_instance_uid
  AND name = 'DUPLICATE_SOP_INSTANCE_REFUSED' AND json_extract(event.details, '$.source') = :source;

-- name: commitment_of_transaction
SELECT id, state, attempts FROM commitment WHERE source = :source AND transaction_uid = :transaction_uid;

-- name: open_commitments_of
-- The plus sign keeps the index on the states in use: those that were told are far more.
SELECT count(*) AS n FROM commitment WHERE state IN ('pending', 'reporting') AND +source = :source;

-- name: insert_commitment
INSERT INTO commitment (source, ae_title, transaction_uid, instances, state, next_attempt_at, created_at)
VALUES (:source, :ae_title, :transaction_uid, :instances, 'pending', :first, :at);

-- name: reopen_commitment
UPDATE commitment SET attempts = 0, next_attempt_at = :first, created_at = :at, finished_at = NULL, outcome = NULL,
                      failure_name = NULL, failure_reason = NULL, asked = NULL, digest = NULL,
                      instances = CASE WHEN digest IS NULL THEN instances ELSE :instances END WHERE id = :id;

-- name: commitments_in_full
SELECT id, finished_at, instances FROM commitment WHERE digest IS NULL AND finished_at <= :until
ORDER BY finished_at LIMIT 1;

-- name: shorten_commitment
UPDATE commitment SET instances = '[]', asked = :asked, digest = :digest
WHERE id = :id AND finished_at = :finished_at;

-- name: newest_revision_size
SELECT id, instance_count FROM series
WHERE study_instance_uid = :study_instance_uid AND series_instance_uid = :series_instance_uid
ORDER BY revision DESC LIMIT 1;

-- name: mark_series_committed
-- Asking again for what was asked for is no news: it must not put the decision off. Only who sends a series knows
-- that it is complete: what another asks for is what it has seen of it.
UPDATE series SET committed_at = :at, committed_count = :count
WHERE id = :id AND state = 'receiving' AND instance_count = :count AND source = :source
  AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.study_instance_uid = series.study_instance_uid
    AND instance.series_instance_uid = series.series_instance_uid AND instance.role = 'member'
    AND instance.last_revision IS NULL AND instance.source <> :source)
  AND (committed_at IS NULL OR committed_at < last_instance_at OR committed_count <> :count);

-- name: waiting_commitments
SELECT id, source, next_attempt_at FROM commitment
WHERE state = 'pending' AND (next_attempt_at <= :at OR next_attempt_at > :at + :longest_wait_s
  OR source IN (SELECT value FROM json_each(:sources))) ORDER BY id;

-- name: count_report
UPDATE commitment SET attempts = attempts + 1 WHERE id = :id;

-- name: commitment_to_report
SELECT * FROM commitment WHERE id = :id;

-- name: close_commitment
UPDATE commitment SET finished_at = :at, outcome = :outcome, failure_name = :failure_name,
                      failure_reason = :failure_reason WHERE id = :id;

-- name: postpone_commitment
UPDATE commitment SET next_attempt_at = :next_attempt_at, failure_name = :failure_name,
                      failure_reason = :failure_reason WHERE id = :id;

-- name: reporting_commitments
SELECT id FROM commitment WHERE state = 'reporting';

-- name: hasten_commitments
UPDATE commitment SET next_attempt_at = :at WHERE state = 'pending';

-- name: commitment_counts
SELECT state, count(*) AS n FROM commitment GROUP BY state;

-- name: list_commitments
SELECT id, source, ae_title, transaction_uid, coalesce(asked, json_array_length(instances)) AS asked, state, attempts,
       next_attempt_at, created_at, finished_at, outcome, failure_name, failure_reason
FROM commitment ORDER BY id DESC LIMIT :limit;
