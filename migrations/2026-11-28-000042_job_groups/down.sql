DROP INDEX background_jobs.jobs_groups;
