-- A job is planned stage by stage; a planning of a stage owns its tasks, whose keys are consecutive; each execution
-- of a task adds an attempt and never changes one. The results are the attempts': a rerun keeps the old ones.
CREATE TABLE job (
  job_key INTEGER PRIMARY KEY,
  job_id TEXT NOT NULL UNIQUE CHECK (length(job_id) = 64),
  job_type TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
  stage INTEGER NOT NULL DEFAULT 1,
  stages TEXT NOT NULL CHECK (json_valid(stages)),
  parameters TEXT NOT NULL CHECK (json_valid(parameters)),
  result TEXT CHECK (result IS NULL OR json_valid(result)),
  error TEXT,
  traceback TEXT,
  created_at REAL NOT NULL,
  started_at REAL,
  ended_at REAL,
  owner TEXT,
  epoch INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  source TEXT
) STRICT;

CREATE TABLE stage (
  stage_key INTEGER PRIMARY KEY,
  job_key INTEGER NOT NULL REFERENCES job,
  stage INTEGER NOT NULL,
  first_key INTEGER NOT NULL,
  task_count INTEGER NOT NULL,
  planned_at REAL NOT NULL,
  superseded INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX stage_current ON stage (job_key, stage) WHERE superseded = 0;

-- The text comes last: whoever looks at states only is not to wade through parameters.
CREATE TABLE task (
  task_key INTEGER PRIMARY KEY,
  stage_key INTEGER NOT NULL REFERENCES stage,
  -- In this order, and not as a list: tasks are inserted and changed by the hundred thousand, and IN costs twice that.
  status TEXT NOT NULL DEFAULT 'queued' CHECK (
    status = 'queued' OR status = 'completed' OR status = 'processing' OR status = 'failed' OR status = 'cancelled'
  ),
  attempt INTEGER NOT NULL DEFAULT 0,
  retries INTEGER NOT NULL DEFAULT 0,
  losses INTEGER NOT NULL DEFAULT 0,
  not_before REAL,
  task_id TEXT NOT NULL,
  task_type TEXT NOT NULL,
  parameters TEXT NOT NULL,
  metadata TEXT
) STRICT;

-- The key is made of the task's and the attempt's number, so that neither needs an index of its own.
CREATE TABLE attempt (
  attempt_key INTEGER PRIMARY KEY,
  task_key INTEGER GENERATED ALWAYS AS (attempt_key >> 12) VIRTUAL,
  attempt INTEGER GENERATED ALWAYS AS (attempt_key & 4095) VIRTUAL,
  outcome TEXT NOT NULL CHECK (
    outcome = 'completed' OR outcome = 'failed' OR outcome = 'lost' OR outcome = 'cancelled' OR outcome = 'interrupted'
  ),
  queued_at REAL,
  backoff REAL,
  started_at REAL,
  ended_at REAL,
  cpu REAL,
  peak_memory INTEGER,
  slot INTEGER,
  pid INTEGER,
  code TEXT,
  result TEXT,
  output TEXT,
  error TEXT,
  error_type TEXT,
  error_category TEXT,
  retryable INTEGER,
  traceback TEXT
) STRICT;

-- +t.status: else SQLite makes an index over all tasks for each of these counts.
CREATE VIEW jobs AS
SELECT j.job_id, j.job_type, j.status, j.stage, json_array_length(j.stages) AS total_stages, j.parameters, j.result,
  j.error, j.traceback, j.created_at, j.started_at, j.ended_at, j.ended_at - j.started_at AS duration,
  (SELECT coalesce(sum(task_count), 0) FROM stage s WHERE s.job_key = j.job_key AND s.superseded = 0) AS tasks,
  (SELECT count(*) FROM stage s JOIN task t ON t.task_key BETWEEN s.first_key AND s.first_key + s.task_count - 1
    WHERE s.job_key = j.job_key AND s.superseded = 0 AND +t.status = 'completed') AS completed,
  (SELECT count(*) FROM stage s JOIN task t ON t.task_key BETWEEN s.first_key AND s.first_key + s.task_count - 1
    WHERE s.job_key = j.job_key AND s.superseded = 0 AND +t.status = 'failed') AS failed,
  j.owner, j.epoch, j.source, j.job_key
FROM job j;

CREATE VIEW stages AS
SELECT j.job_id, s.stage, json_extract(j.stages, '$[' || (s.stage - 1) || '].name') AS stage_name,
  json_extract(j.stages, '$[' || (s.stage - 1) || '].task_type') AS task_type,
  json_extract(j.stages, '$[' || (s.stage - 1) || '].parallelism') AS parallelism,
  s.task_count AS tasks, s.planned_at, s.superseded, s.first_key, s.stage_key, s.job_key
FROM stage s JOIN job j USING (job_key);

CREATE VIEW tasks AS
SELECT j.job_id, t.task_id, s.stage, json_extract(j.stages, '$[' || (s.stage - 1) || '].name') AS stage_name,
  t.task_key - s.first_key AS task_index, t.task_type, t.status, t.attempt AS attempts, t.retries, t.parameters,
  CASE t.status WHEN 'completed' THEN a.result END AS result,
  CASE WHEN t.status <> 'completed' THEN a.error END AS error,
  CASE WHEN t.status <> 'completed' THEN a.error_type END AS error_type,
  CASE WHEN t.status <> 'completed' THEN a.error_category END AS error_category,
  s.planned_at AS created_at, a.started_at, a.ended_at, a.ended_at - a.started_at AS duration, a.code,
  t.metadata, t.not_before, s.superseded, s.job_key, t.task_key
FROM task t JOIN stage s USING (stage_key) JOIN job j USING (job_key)
  LEFT JOIN attempt a ON a.attempt_key = (t.task_key << 12) + t.attempt;

CREATE VIEW attempts AS
SELECT j.job_id, t.task_id, s.stage, a.attempt, a.outcome, a.error, a.error_type, a.error_category, a.retryable,
  a.traceback, a.output, a.slot, a.pid, coalesce(a.queued_at, s.planned_at) AS queued_at, a.backoff, a.started_at, a.ended_at,
  a.ended_at - a.started_at AS duration, a.cpu, a.peak_memory, a.code, t.task_key - s.first_key AS task_index, t.task_type,
  s.superseded, s.job_key, t.task_key
FROM task t JOIN attempt a ON a.attempt_key BETWEEN (t.task_key << 12) AND (t.task_key << 12) + 4095
  JOIN stage s USING (stage_key) JOIN job j USING (job_key);
