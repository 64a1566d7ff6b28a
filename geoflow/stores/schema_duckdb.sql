-- What DuckDB has of its own beside what is made of `schema.sql`: which schema it is, and the views that it reads faster so.
CREATE TABLE geoflow (schema INTEGER NOT NULL);

CREATE VIEW jobs AS
SELECT j.job_id, j.job_type, j.status, j.stage, json_array_length(j.stages)::BIGINT AS total_stages, j.parameters, j.result,
  j.error, j.traceback, j.created_at, j.started_at, j.ended_at, j.ended_at - j.started_at AS duration,
  coalesce(c.tasks, 0) AS tasks, coalesce(c.completed, 0) AS completed, coalesce(c.failed, 0) AS failed,
  j.owner, j.epoch, j.source, j.job_key
FROM job j LEFT JOIN (
  SELECT s.job_key, count(*) AS tasks, count(*) FILTER (t.status = 'completed') AS completed,
    count(*) FILTER (t.status = 'failed') AS failed
  FROM stage s JOIN task t USING (stage_key) WHERE s.superseded = 0 GROUP BY s.job_key
) c USING (job_key);

CREATE VIEW attempts AS
SELECT j.job_id, t.task_id, s.stage, a.attempt, a.outcome, a.error, a.error_type, a.error_category,
  a.retryable, a.traceback, a.output, a.slot, a.pid, coalesce(a.queued_at, s.planned_at) AS queued_at, a.backoff,
  a.started_at, a.ended_at, a.ended_at - a.started_at AS duration, a.cpu, a.peak_memory, a.code,
  t.task_key - s.first_key AS task_index, t.task_type, s.superseded, s.job_key, t.task_key
FROM attempt a JOIN task t USING (task_key) JOIN stage s USING (stage_key)
  JOIN job j USING (job_key);
