-- Which groups have jobs that are open, and the oldest of each: a claim takes turns among them.

CREATE INDEX jobs_groups ON background_jobs.jobs (queue, group_key, available_at) WHERE state IN ('available', 'running');
