"""The SQL of the pages that differ between two crawls."""

from sqlalchemy import TextClause, text

SLOWER_FACTOR = 2.0
SLOWER_MS = 500.0
"""A page is slower if it took at least so many times as long, and at least so much longer."""

_NAMES = (
    *("id", "source_url", "state", "status_code", "error_code", "error", "title", "settled_at", "total_ms"),
    "chunks",
)
_COLUMNS = ", ".join(f"{side}.{name} AS {side}_{name}" for side in ("now", "before") for name in _NAMES)


def _differing(which: str = "true") -> str:
    """`content_hash` is NULL for pages that settled before it was recorded: their texts are compared."""
    page = f"""
        SELECT {", ".join(_NAMES)}, source_key, content_hash,
            state IN ('indexed', 'unchanged', 'empty') AS has_text
        FROM webhook.pages WHERE settled_at IS NOT NULL AND {which}
    """  # noqa: S608 - constants
    return f"""
        FROM ({page} AND crawl_id = :crawl_id) AS now
        FULL JOIN ({page} AND crawl_id = :against) AS before USING (source_key)
        CROSS JOIN LATERAL (
            VALUES
                ('added', 1, now.has_text AND before.id IS NULL),
                ('removed', 2, before.has_text AND now.id IS NULL AND CAST(:is_ended AS boolean)
                    AND NOT EXISTS (
                        SELECT FROM webhook.pages AS pending
                        WHERE pending.crawl_id = :crawl_id AND pending.source_key = before.source_key
                    )),
                ('changed', 3, now.has_text AND before.has_text AND CASE
                    WHEN now.content_hash IS NULL OR before.content_hash IS NULL THEN (
                        SELECT coalesce(new.hash, sha256(convert_to(new.markdown, 'UTF8')))
                            <> coalesce(old.hash, sha256(convert_to(old.markdown, 'UTF8')))
                        FROM webhook.page_contents AS new, webhook.page_contents AS old
                        WHERE new.page_id = now.id AND old.page_id = before.id
                    )
                    ELSE now.content_hash <> before.content_hash
                END),
                ('newly_failed', 4, now.state = 'failed' AND coalesce(before.state, '') <> 'failed'),
                ('recovered', 5, now.has_text AND before.state = 'failed'),
                ('slower', 6, now.state = 'indexed' AND before.state = 'indexed'
                    AND now.total_ms >= before.total_ms * {SLOWER_FACTOR}
                    AND now.total_ms >= before.total_ms + {SLOWER_MS})
        ) AS found (kind, place, holds)
        WHERE found.holds
    """  # noqa: S608 - constants


CHANGES: TextClause = text(f"""
    SELECT found.kind, {_COLUMNS} {_differing()} AND found.kind = ANY (CAST(:kinds AS text[]))
    ORDER BY found.place, coalesce(now.source_url, before.source_url) COLLATE "C"
    LIMIT CAST(:limit AS bigint) OFFSET CAST(:offset AS bigint)
""")
"""A row for each kind of change of each page, by kind and URL."""
CHANGES_OF_PAGE: TextClause = text(f"""
    SELECT found.kind, {_COLUMNS} {_differing("source_key = :source_key")} ORDER BY found.place
""")
COUNTS: TextClause = text(f"SELECT found.kind, count(*) AS count {_differing()} GROUP BY found.kind")
CONTENTS_OF_PAGE: TextClause = text("""
    SELECT page.crawl_id, page.title, page.settled_at, content.markdown, delivery.body,
        content.begins, content.ends
    FROM webhook.pages AS page
    LEFT JOIN webhook.page_contents AS content ON content.page_id = page.id
    LEFT JOIN webhook.deliveries AS delivery ON delivery.id = content.delivery_id
    WHERE page.source_key = :source_key AND page.crawl_id IN (:crawl_id, :against)
""")
