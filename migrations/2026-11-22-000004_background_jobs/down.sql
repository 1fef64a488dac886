DROP TABLE background_jobs.jobs;
DROP FUNCTION background_jobs.wake, background_jobs.fence;
