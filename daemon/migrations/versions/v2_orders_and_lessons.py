"""Schema 2: facts know their order, sessions how far they go, and decisions what they taught.

There is no way down: the verified backup beside the journal is the older schema.
"""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = None  # schema 1 is the base
branch_labels = None
depends_on = None

ORDER_OF = """
    UPDATE facts SET order_id = CASE kind
        WHEN 'OrderUpdate' THEN json_extract(body, '$[2]')
        WHEN 'Fill' THEN json_extract(body, '$[4]')
        WHEN 'Adopted' THEN json_extract(body, '$[2][0]')
    END
    WHERE kind IN ('OrderUpdate', 'Fill', 'Adopted')
"""
"""Rows of the codec: the kind, then the fields in order."""


def upgrade() -> None:
    """Add, fill, index; nothing is dropped but an index that a better one replaces."""
    op.add_column("sessions", sa.Column("last_seq", sa.BigInteger))
    op.add_column("sessions", sa.Column("cut_seq", sa.BigInteger))
    op.add_column("facts", sa.Column("order_id", sa.Text))
    op.execute(ORDER_OF)
    op.drop_index("ix_facts_kind", "facts")
    op.create_index("ix_facts_epoch_kind", "facts", ["epoch", "kind"])
    op.create_index("ix_facts_order_id", "facts", ["order_id"], sqlite_where=sa.text("order_id IS NOT NULL"))
    op.create_index("ix_decisions_epoch_seq", "decisions", ["epoch", "seq"])
    op.create_table(
        "lessons",
        sa.Column("epoch", sa.Integer, primary_key=True),
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("time", sa.BigInteger, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
