"""Each index has its embedder: what it holds is known per index, and another one can be filled beside it."""

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OLD_INDEX = sa.text(
    "INSERT INTO webhook.index_generations"
    " (id, name, fingerprint, embedder, chunk_tokens, state, made_at, switched_at)"
    " VALUES (1, 'index', :fingerprint, CAST(:embedder AS jsonb), :chunk_tokens, 'serving', now(), now())"
)


def upgrade() -> None:
    op.create_table(
        "index_generations",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("embedder", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("chunk_tokens", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("switched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_index_generations")),
        sa.UniqueConstraint("name", name=op.f("uq_index_generations_name")),
        schema="webhook",
    )
    op.create_index(
        "uq_index_generations_live",
        "index_generations",
        ["state"],
        unique=True,
        schema="webhook",
        postgresql_where=sa.text("state IN ('serving', 'filling')"),
    )
    _note_the_old_index()
    op.drop_constraint(
        "fk_document_crawls_document_key_documents", "document_crawls", schema="webhook", type_="foreignkey"
    )
    op.add_column(
        "documents",
        sa.Column("generation_id", sa.BigInteger(), server_default="1", nullable=False),
        schema="webhook",
    )
    op.alter_column("documents", "generation_id", server_default=None, schema="webhook")
    op.add_column(
        "documents",
        sa.Column("revision", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        schema="webhook",
    )
    op.add_column("documents", sa.Column("error", sa.Text(), nullable=True), schema="webhook")
    op.drop_constraint("pk_documents", "documents", schema="webhook", type_="primary")
    op.create_primary_key("pk_documents", "documents", ["generation_id", "key"], schema="webhook")
    op.create_foreign_key(
        op.f("fk_documents_generation_id_index_generations"),
        "documents",
        "index_generations",
        ["generation_id"],
        ["id"],
        source_schema="webhook",
        referent_schema="webhook",
        ondelete="CASCADE",
    )


def downgrade() -> None:
    op.execute(
        "DELETE FROM webhook.documents WHERE error IS NOT NULL OR generation_id NOT IN"
        " (SELECT id FROM webhook.index_generations WHERE state = 'serving')"
    )
    op.execute(
        "DELETE FROM webhook.document_crawls WHERE document_key NOT IN (SELECT key FROM webhook.documents)"
    )
    op.drop_constraint(
        op.f("fk_documents_generation_id_index_generations"),
        "documents",
        schema="webhook",
        type_="foreignkey",
    )
    op.drop_constraint("pk_documents", "documents", schema="webhook", type_="primary")
    op.create_primary_key("pk_documents", "documents", ["key"], schema="webhook")
    for column in ("error", "revision", "generation_id"):
        op.drop_column("documents", column, schema="webhook")
    op.create_foreign_key(
        op.f("fk_document_crawls_document_key_documents"),
        "document_crawls",
        "documents",
        ["document_key"],
        ["key"],
        source_schema="webhook",
        referent_schema="webhook",
        ondelete="CASCADE",
    )
    op.drop_table("index_generations", schema="webhook")


def _note_the_old_index() -> None:
    """What most of its documents were made with; without any document there is no index to speak of."""
    connection = op.get_bind()
    commonest = connection.scalar(
        sa.text(
            "SELECT fingerprint FROM webhook.documents"
            " GROUP BY fingerprint ORDER BY fingerprint = '', count(*) DESC LIMIT 1"
        )
    )
    if commonest is not None:
        connection.execute(OLD_INDEX, _described(commonest))


def _described(fingerprint: str) -> dict[str, object]:
    """`embedder:model:revision:dimension|encoder|chunks:version:tokens`, taken apart."""
    made_by, _, settings = fingerprint.partition("|")
    embedder, _, rest = made_by.partition(":")
    model, revision_of_model, dimension = (["", "", "0", *rest.rsplit(":", 2)])[-3:]
    return {
        "fingerprint": fingerprint,
        "embedder": json.dumps(
            {
                "embedder": embedder,
                "model": model,
                "revision": revision_of_model,
                "dimension": int(dimension or 0),
                "url": None,
            }
        ),
        "chunk_tokens": int(settings.rpartition(":")[2] or 200),
    }
