-- The tables and views of `schema.sql`, as DuckDB has them. What differs: JSON has a type, which takes NaN too; an index
-- cannot be partial, so that a stage is not planned twice is for the one writer to see to; and there are no foreign keys,
-- since DuckDB refuses any change of a row that another one refers to once the file was closed and opened again.
CREATE TABLE geoflow (schema INTEGER NOT NULL);

CREATE TABLE job (
  job_key BIGINT PRIMARY KEY,
  job_id VARCHAR NOT NULL UNIQUE CHECK (length(job_id) = 64),
  job_type VARCHAR NOT NULL,
  status VARCHAR NOT NULL CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
  stage BIGINT NOT NULL DEFAULT 1,
  stages JSON NOT NULL,
  parameters JSON NOT NULL,
  result JSON,
  error VARCHAR,
  traceback VARCHAR,
  created_at DOUBLE NOT NULL,
  started_at DOUBLE,
  ended_at DOUBLE,
  owner VARCHAR,
  epoch BIGINT NOT NULL DEFAULT 0 CHECK (epoch >= 0),
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  source VARCHAR
);

CREATE TABLE stage (
  stage_key BIGINT PRIMARY KEY,
  job_key BIGINT NOT NULL,
  stage BIGINT NOT NULL,
  first_key BIGINT NOT NULL,
  task_count BIGINT NOT NULL,
  planned_at DOUBLE NOT NULL,
  superseded INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE task (
  task_key BIGINT PRIMARY KEY,
  stage_key BIGINT NOT NULL,
  status VARCHAR NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
  attempt BIGINT NOT NULL DEFAULT 0,
  retries BIGINT NOT NULL DEFAULT 0,
  losses BIGINT NOT NULL DEFAULT 0,
  not_before DOUBLE,
  task_id VARCHAR NOT NULL,
  task_type VARCHAR NOT NULL,
  parameters JSON NOT NULL,
  metadata JSON
);

CREATE TABLE attempt (
  attempt_key BIGINT PRIMARY KEY,
  task_key BIGINT GENERATED ALWAYS AS (attempt_key >> 12) VIRTUAL,
  attempt BIGINT GENERATED ALWAYS AS (attempt_key & 4095) VIRTUAL,
  outcome VARCHAR NOT NULL CHECK (outcome IN ('completed', 'failed', 'lost', 'cancelled', 'interrupted')),
  queued_at DOUBLE,
  backoff DOUBLE,
  started_at DOUBLE,
  ended_at DOUBLE,
  cpu DOUBLE,
  peak_memory BIGINT,
  slot BIGINT,
  pid BIGINT,
  code VARCHAR,
  result JSON,
  output VARCHAR,
  error VARCHAR,
  error_type VARCHAR,
  error_category VARCHAR,
  retryable INTEGER,
  traceback VARCHAR
);

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

CREATE VIEW stages AS
SELECT j.job_id, s.stage, j.stages ->> ('$[' || (s.stage - 1) || '].name') AS stage_name,
  j.stages ->> ('$[' || (s.stage - 1) || '].task_type') AS task_type,
  j.stages ->> ('$[' || (s.stage - 1) || '].parallelism') AS parallelism,
  s.task_count AS tasks, s.planned_at, s.superseded, s.first_key, s.stage_key, s.job_key
FROM stage s JOIN job j USING (job_key);

CREATE VIEW tasks AS
SELECT j.job_id, t.task_id, s.stage, j.stages ->> ('$[' || (s.stage - 1) || '].name') AS stage_name,
  t.task_key - s.first_key AS task_index, t.task_type, t.status,
  t.attempt AS attempts, t.retries, t.parameters,
  CASE WHEN t.status = 'completed' THEN a.result END AS result,
  CASE WHEN t.status <> 'completed' THEN a.error END AS error,
  CASE WHEN t.status <> 'completed' THEN a.error_type END AS error_type,
  CASE WHEN t.status <> 'completed' THEN a.error_category END AS error_category,
  s.planned_at AS created_at, a.started_at, a.ended_at, a.ended_at - a.started_at AS duration, a.code,
  t.metadata, t.not_before, s.superseded, s.job_key, t.task_key
FROM task t JOIN stage s USING (stage_key) JOIN job j USING (job_key)
  LEFT JOIN attempt a ON a.attempt_key = (t.task_key << 12) + t.attempt;

CREATE VIEW attempts AS
SELECT j.job_id, t.task_id, s.stage, a.attempt, a.outcome, a.error, a.error_type, a.error_category,
  a.retryable, a.traceback, a.output, a.slot, a.pid, coalesce(a.queued_at, s.planned_at) AS queued_at, a.backoff,
  a.started_at, a.ended_at, a.ended_at - a.started_at AS duration, a.cpu, a.peak_memory, a.code,
  t.task_key - s.first_key AS task_index, t.task_type, s.superseded, s.job_key, t.task_key
FROM attempt a JOIN task t USING (task_key) JOIN stage s USING (stage_key)
  JOIN job j USING (job_key);
