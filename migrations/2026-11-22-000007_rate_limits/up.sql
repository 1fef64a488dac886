-- How often one may call, counted for all servers. Each row is a token bucket, kept as the time when it is full again:
-- a token that is missing is a fraction of a second until then. No row is a full bucket, so a crash that empties an
-- unlogged table forgives everybody. There is no index on the time: without one an update stays in its page.

CREATE UNLOGGED TABLE iam.rate_limits (
    -- SHA-256 of what is limited and for whom: addresses of people do not stand here in clear.
    key bytea PRIMARY KEY,
    full_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CALL iam.secure_table('iam.rate_limits', 'machinery');
CALL iam.system_policy('iam.rate_limits', 'SELECT, INSERT, UPDATE, DELETE');

-- Takes `wanted` tokens, `burst` at most, from a bucket that holds `burst` and gets `rate` a second: all of them, or none
-- and the seconds until there are enough. What is `spent` already is taken in any case, and a debt is left, of one burst at
-- most. Concurrent callers wait for each other at the row, so they never get more than there is.
CREATE FUNCTION iam.take_tokens(bucket bytea, rate float8, burst float8, wanted float8, spent boolean,
    OUT granted boolean, OUT tokens_left float8, OUT wait_seconds float8) LANGUAGE plpgsql AS $$
DECLARE
    price interval := make_interval(secs => wanted / rate);
    depth interval := make_interval(secs => burst / rate);
    full_then timestamptz;
BEGIN
    INSERT INTO iam.rate_limits AS r (key, full_at) VALUES (bucket, clock_timestamp() + price)
    ON CONFLICT (key) DO UPDATE
        SET full_at = least(greatest(r.full_at, clock_timestamp()) + price, clock_timestamp() + 2 * depth)
        WHERE spent OR r.full_at + price <= clock_timestamp() + depth
    RETURNING full_at INTO full_then;
    granted := FOUND;
    IF NOT granted THEN
        SELECT full_at INTO full_then FROM iam.rate_limits WHERE key = bucket;
    END IF;
    tokens_left := least(burst, burst - rate * extract(epoch FROM full_then - clock_timestamp())::float8);
    wait_seconds := CASE WHEN granted THEN 0 ELSE greatest(0, (wanted - tokens_left) / rate) END;
END
$$;
REVOKE ALL ON FUNCTION iam.take_tokens FROM public;
GRANT EXECUTE ON FUNCTION iam.take_tokens TO virtualstack_system;
