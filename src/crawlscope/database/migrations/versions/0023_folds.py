"""The merged facts of crawls that former versions recorded get what later versions merge new facts into."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None
serves_from = "0022"

ISO = """replace(to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'), '.000000', '')"""
COMPLETE = f"""
    WITH incomplete AS (
        SELECT crawl_id FROM webhook.crawl_sessions
        WHERE (fold ? 'first_page' AND NOT fold ? 'last_page_at')
            OR (fold ? 'ends' AND NOT fold ? 'prompt_end_at')
    ), fact AS (
        SELECT crawl_id, received_at AS at, jsonb_array_elements(facts) AS stored
        FROM webhook.deliveries JOIN incomplete USING (crawl_id)
        UNION ALL
        SELECT crawl_id, at, fact FROM webhook.crawl_facts JOIN incomplete USING (crawl_id)
    ), merged AS (
        SELECT crawl_id,
            max(at) FILTER (WHERE stored ? 'page' AND NOT stored ? 'fetched') AS last_page_at,
            max(at) FILTER (WHERE stored ? 'ended' AND NOT stored ? 'late') AS prompt_end_at
        FROM fact GROUP BY crawl_id
    )
    UPDATE webhook.crawl_sessions AS session SET fold = (
        SELECT jsonb_object_agg(key, value) FROM jsonb_each(
            fold || jsonb_build_object(
                'first_fact_at', {ISO.format("(fold->>'first_fact_at')::timestamptz")},
                'last_page_at', {ISO.format("last_page_at")},
                'prompt_end_at', {ISO.format("prompt_end_at")}
            )
        ) WHERE value NOT IN ('null', '{{}}', '[]')
    )
    FROM merged WHERE merged.crawl_id = session.crawl_id
"""
LACKING = """
    UPDATE webhook.crawl_sessions SET lacks = (
        SELECT jsonb_agg(name ORDER BY number) FROM (VALUES
            (1, 'started', fold ? 'created_at'), (2, 'initiated_at', initiated_at IS NOT NULL),
            (3, 'url', crawl_url <> 'unknown'), (4, 'pages', fold ? 'first_page'),
            (5, 'end', completed_at IS NOT NULL)
        ) AS part (number, name, is_known) WHERE NOT is_known
    )
    WHERE lacks = '[]' AND fold <> '{}' AND NOT fold ? 'heard' AND NOT fold ? 'created_at'
"""
"""What was heard of these crawls was not kept, so that their start is unknown."""


def upgrade() -> None:
    op.execute(COMPLETE)
    op.execute(LACKING)


def downgrade() -> None:
    """Former versions pass over what they do not know."""
