-- The job queue. It knows groups and kinds, not tenants and VMs; a tenant may only put jobs of its own group in.

CREATE TABLE background_jobs.jobs (
    id uuid PRIMARY KEY,
    queue text NOT NULL,
    kind text NOT NULL,
    group_key text NOT NULL,
    payload jsonb NOT NULL,
    -- Where the workflow is; null before its first step.
    progress jsonb,
    state text NOT NULL DEFAULT 'available' CHECK (state IN ('available', 'running', 'completed', 'discarded')),
    -- When it may be claimed; while it runs, the end of the lease.
    available_at timestamptz NOT NULL DEFAULT now(),
    -- When it is tried again if this try fails; written by the claim.
    retry_at timestamptz,
    attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL,
    -- Raised by each claim: whoever holds an older one cannot write.
    fencing_token bigint NOT NULL DEFAULT 0,
    worker text,
    last_error text,
    -- W3C trace context of the request that made it.
    traceparent text,
    -- One live job per key, for periodic work.
    unique_key text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE INDEX jobs_claim ON background_jobs.jobs (queue, available_at) WHERE state IN ('available', 'running');
CREATE UNIQUE INDEX jobs_unique_key ON background_jobs.jobs (unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_finished ON background_jobs.jobs (finished_at) WHERE finished_at IS NOT NULL;

CALL iam.secure_table('background_jobs.jobs', 'machinery');
CREATE POLICY tenant ON background_jobs.jobs FOR INSERT TO virtualstack_tenant
    WITH CHECK (group_key = (SELECT iam.current_tenant())::text);
GRANT INSERT ON background_jobs.jobs TO virtualstack_tenant;
CREATE POLICY queue ON background_jobs.jobs TO virtualstack_queue USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON background_jobs.jobs TO virtualstack_queue;
CALL iam.system_policy('background_jobs.jobs', 'SELECT, INSERT, DELETE');

-- Locks a job for the holder of a fencing token; VS410 when somebody else has claimed it since.
CREATE FUNCTION background_jobs.fence(job uuid, token bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM background_jobs.jobs WHERE id = job AND fencing_token = token AND state = 'running' FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'LEASE_LOST' USING ERRCODE = 'VS410';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION background_jobs.fence FROM public;
GRANT EXECUTE ON FUNCTION background_jobs.fence TO virtualstack_queue;

-- Wakes the workers, once per statement and queue, and only for what is due now.
CREATE FUNCTION background_jobs.wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('virtualstack_jobs', due.queue)
    FROM (SELECT DISTINCT queue FROM written WHERE state = 'available' AND available_at <= now()) due;
    RETURN NULL;
END
$$;
CREATE TRIGGER wake_insert AFTER INSERT ON background_jobs.jobs
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION background_jobs.wake();
CREATE TRIGGER wake_update AFTER UPDATE ON background_jobs.jobs
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION background_jobs.wake();
