"""The SQL of a crawl's course: its events over time, and the use of its time. All statements only read."""

from sqlalchemy import text

PAGES_PER_BUCKET = text("""
    WITH happened AS (
        SELECT received_at AS at, 'received' AS what FROM webhook.pages WHERE crawl_id = :crawl_id
        UNION ALL
        SELECT settled_at, CASE state WHEN 'failed' THEN 'failed' ELSE 'indexed' END
        FROM webhook.pages
        WHERE crawl_id = :crawl_id AND settled_at IS NOT NULL AND state <> 'cancelled'
    )
    SELECT
        greatest(0, least(CAST(:buckets AS int) - 1, floor(
            extract(epoch FROM at - CAST(:began_at AS timestamptz)) * 1000 / CAST(:bucket_ms AS float8)
        )))::int AS bucket,
        what, count(*) AS number
    FROM happened GROUP BY 1, 2
""")
STAGES_PER_BUCKET = text("""
    WITH given AS (
        SELECT CAST(:began_at AS timestamptz) AS began_at, CAST(:bucket_ms AS float8) AS each_ms,
            CAST(:buckets AS int) - 1 AS final
    ), placed AS (
        SELECT
            operation_type, final,
            greatest(0, date_part('epoch', timestamp - began_at) * 1000 / each_ms) AS since,
            (date_part('epoch', timestamp - began_at) * 1000 + duration_ms) / each_ms AS until
        FROM webhook.operation_metrics CROSS JOIN given
        WHERE crawl_id = :crawl_id AND operation_type <> 'webhook'
    ), alike AS (
        SELECT
            operation_type, least(floor(since), final) AS first, least(floor(until), final) AS last,
            count(*) AS number, sum(since) AS since, sum(until) AS until
        FROM placed GROUP BY 1, 2, 3
    )
    SELECT
        operation_type, bucket::int AS bucket,
        sum(
            CASE bucket WHEN last THEN until ELSE number * (bucket + 1) END
            - CASE bucket WHEN first THEN since ELSE number * bucket END
        ) * CAST(:bucket_ms AS float8) AS ms
    FROM alike CROSS JOIN LATERAL generate_series(first::bigint, last::bigint) AS bucket
    GROUP BY 1, 2
""")
"""Operations that begin in one bucket and end in one are summed up first: there are few such pairs. The last
bucket has everything after it, too: an operation can last much longer than the known part of its crawl."""
MOVES_PER_BUCKET = text("""
    WITH attempt AS (
        SELECT queued_at, started_at, finished_at
        FROM webhook.page_attempts WHERE page_id IN (SELECT id FROM webhook.pages WHERE crawl_id = :crawl_id)
    ), moved AS (
        SELECT queued_at AS at, 1 AS queued, 0 AS indexing FROM attempt WHERE queued_at IS NOT NULL
        UNION ALL
        SELECT started_at, CASE WHEN queued_at IS NULL THEN 0 ELSE -1 END, 1 FROM attempt
        UNION ALL
        SELECT finished_at, 0, -1 FROM attempt WHERE finished_at IS NOT NULL
        UNION ALL
        SELECT queued_at, 1, 0 FROM webhook.pages WHERE crawl_id = :crawl_id AND state = 'queued'
    )
    SELECT
        greatest(0, least(CAST(:buckets AS int) - 1, floor(
            extract(epoch FROM at - CAST(:began_at AS timestamptz)) * 1000 / CAST(:bucket_ms AS float8)
        )))::int AS bucket,
        sum(queued)::int AS queued, sum(indexing)::int AS indexing
    FROM moved GROUP BY 1
""")
"""How many more pages than before wait, and are worked on."""
BROKEN_ATTEMPTS_PER_BUCKET = text("""
    SELECT
        min(finished_at) AS at, outcome, error_code, count(*) AS number, floor(
            extract(epoch FROM finished_at - CAST(:began_at AS timestamptz)) * 1000
            / CAST(:bucket_ms AS float8)
        ) AS bucket
    FROM webhook.page_attempts
    WHERE page_id IN (SELECT id FROM webhook.pages WHERE crawl_id = :crawl_id)
        AND outcome IN ('retried', 'crashed', 'lost')
    GROUP BY bucket, outcome, error_code
""")
ACTIONS = text("""
    SELECT at, fact ->> 'action' AS action FROM webhook.crawl_facts
    WHERE crawl_id = :crawl_id AND fact ? 'action'
""")
OUTAGES_BETWEEN = text("""
    WITH seen AS (
        SELECT part, since, until, reason FROM webhook.past_outages
        WHERE until > CAST(:began_at AS timestamptz) AND since < CAST(:ended_at AS timestamptz)
        UNION ALL
        SELECT part, since, CASE WHEN reported_at > now() - CAST(:report_lasts AS interval)
            THEN 'infinity' ELSE reported_at END, reason
        FROM webhook.outages WHERE since < CAST(:ended_at AS timestamptz)
    ), merged AS (
        SELECT part, range_agg(tstzrange(since, until)) AS spans, max(reason) AS reason
        FROM seen GROUP BY part
    )
    SELECT part, lower(span) AS since, CASE WHEN isfinite(upper(span)) THEN upper(span) END AS until, reason
    FROM merged CROSS JOIN LATERAL unnest(spans) AS span
""")
"""One row per outage, although several workers have seen it."""
STAGE_TIMES = text("""
    WITH stage AS (
        SELECT
            operation_type, sum(duration_ms) AS work_ms,
            range_agg(
                tstzrange(timestamp, timestamp + make_interval(secs => duration_ms / 1000))
            ) AS intervals
        FROM webhook.operation_metrics
        WHERE crawl_id = :crawl_id AND operation_type <> 'webhook'
        GROUP BY operation_type
    )
    SELECT operation_type, work_ms, (
        SELECT coalesce(sum(date_part('epoch', upper(each) - lower(each))), 0) * 1000
        FROM unnest(intervals) AS each
    ) AS wall_ms
    FROM stage
""")
TIME_SPENT = text("""
    WITH given AS (
        SELECT CAST(:now AS timestamptz) AS now, CAST(:began_at AS timestamptz) AS began_at,
            CAST(:crawled_at AS timestamptz) AS crawled_at, CAST(:late_after AS interval) AS late_after,
            CAST(:report_lasts AS interval) AS report_lasts
    ), page AS (
        SELECT id, attempts, chunks, queued_at, state FROM webhook.pages WHERE crawl_id = :crawl_id
    ), usual AS (
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY chunks) AS chunks,
            greatest(
                CAST(:giant_chunks AS int), 10 * percentile_cont(0.5) WITHIN GROUP (ORDER BY chunks)
            ) AS giant
        FROM page WHERE chunks > 0
    ), stay AS (
        SELECT
            attempt.queued_at, attempt.started_at, coalesce(attempt.finished_at, now) AS until,
            attempt.worker, attempt.outcome IN ('retried', 'crashed', 'lost') AS broken,
            page.attempts > 1 AS again,
            coalesce(page.chunks >= usual.giant, false) AS giant
        FROM webhook.page_attempts AS attempt JOIN page ON page.id = attempt.page_id
            CROSS JOIN usual CROSS JOIN given
        UNION ALL
        SELECT queued_at, NULL, now, NULL, false, false, false
        FROM page CROSS JOIN given WHERE state = 'queued'
    ), timed AS (
        SELECT
            *, CASE WHEN started_at <= until THEN tstzrange(started_at, until) END AS worked,
            CASE WHEN queued_at <= coalesce(started_at, until)
                THEN tstzrange(queued_at, coalesce(started_at, until)) END AS waited,
            CASE WHEN queued_at + late_after <= until
                THEN tstzrange(queued_at + late_after, until) END AS lagged
        FROM stay CROSS JOIN given
    ), parts AS (
        SELECT
            coalesce(range_agg(worked), '{}') AS working,
            coalesce(range_agg(waited), '{}') AS waiting,
            coalesce(range_agg(lagged), '{}') AS late,
            coalesce(range_agg(lagged) FILTER (WHERE NOT again), '{}') AS late_at_first,
            coalesce(range_agg(lagged) FILTER (WHERE NOT giant), '{}') AS late_without_giants,
            count(DISTINCT worker) AS workers,
            count(started_at) AS attempts,
            count(*) FILTER (WHERE broken) AS broken_attempts,
            coalesce(sum(extract(epoch FROM until - started_at)) FILTER (WHERE broken), 0) AS wasted_seconds,
            coalesce(sum(extract(epoch FROM until - started_at)), 0) AS worked_seconds,
            coalesce(sum(extract(epoch FROM until - started_at)) FILTER (WHERE giant), 0) AS giant_seconds
        FROM timed
    ), outage AS (
        SELECT
            coalesce(range_agg(out) FILTER (WHERE part = 'database'), '{}') AS database,
            coalesce(range_agg(out) FILTER (WHERE part = 'index'), '{}') * (working + waiting) AS index,
            coalesce(range_agg(out) FILTER (WHERE part = 'embedder'), '{}') * (working + waiting) AS embedder
        FROM parts LEFT JOIN (
            SELECT part, tstzrange(since, until) AS out
            FROM webhook.past_outages CROSS JOIN given WHERE until > began_at AND since < now
            UNION ALL
            SELECT part, tstzrange(
                since,
                greatest(since, CASE WHEN reported_at > now - report_lasts THEN now ELSE reported_at END)
            )
            FROM webhook.outages CROSS JOIN given WHERE since < now
        ) AS each ON true
        GROUP BY working, waiting
    ), span AS (
        SELECT
            *, tstzmultirange(tstzrange(began_at, crawled_at)) + working + waiting AS whole,
            database + index + embedder AS unavailable
        FROM parts CROSS JOIN outage CROSS JOIN given
    ), divided AS (
        SELECT *, whole - (working - unavailable) AS idle FROM span
    ), lengths AS (
        SELECT
            of.name, (
                SELECT coalesce(sum(extract(epoch FROM upper(each) - lower(each))), 0)::float8 * 1000
                FROM unnest(of.intervals) AS each
            ) AS ms
        FROM divided CROSS JOIN LATERAL (
            VALUES
                ('wall', whole), ('busy', working - unavailable), ('late', late - unavailable),
                ('late_again', late - unavailable - late_at_first),
                ('late_giants', late - unavailable - late_without_giants),
                ('crawler', idle - unavailable - waiting), ('queue', (idle - unavailable) * waiting),
                ('database', idle * database), ('index', (idle - database) * index),
                ('embedder', (idle - database - index) * embedder)
        ) AS of (name, intervals)
    )
    SELECT
        (SELECT jsonb_object_agg(name, ms) FROM lengths) AS lengths,
        workers, attempts, broken_attempts, wasted_seconds::float8 * 1000 AS wasted_ms,
        worked_seconds::float8 * 1000 AS worked_ms, giant_seconds::float8 * 1000 AS giant_ms,
        (SELECT chunks FROM usual) AS usual_chunks,
        (SELECT max(chunks) FROM page) AS most_chunks,
        (SELECT count(*) FROM page CROSS JOIN usual WHERE page.chunks >= usual.giant) AS giants
    FROM parts
""")
"""Milliseconds by state of the crawl (`lengths`), and numbers of its attempts. The states `busy`, `crawler`,
`queue`, `database`, `index` and `embedder` divide `wall`."""
CAUSE_OF_RETRIES = text("""
    SELECT error_code FROM webhook.page_attempts
    WHERE page_id IN (SELECT id FROM webhook.pages WHERE crawl_id = :crawl_id)
        AND outcome IN ('retried', 'crashed', 'lost')
    GROUP BY error_code ORDER BY count(*) DESC, error_code LIMIT 1
""")
"""The most frequent one."""
SITE_TIMES = text("""
    SELECT requests, response_ms, refusals, delay_ms FROM webhook.crawl_requests
    WHERE crawl_id = :crawl_id AND engine = 'builtin'
""")
REFUSED_PAGES = text("""
    SELECT count(*) FROM webhook.pages
    WHERE crawl_id = :crawl_id AND state = 'failed' AND error_code = 'http_429'
""")
