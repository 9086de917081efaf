"""Completeness ledger."""

import sqlalchemy as sa
from alembic import op

revision = "samples_0102"
down_revision = "samples_0101"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ledger_gaps",
        sa.Column("agent_no", sa.Integer(), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("to_ms", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("agent_no", "from_ms", "to_ms", "reason", name=op.f("pk_ledger_gaps")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ledger_hours",
        sa.Column("agent_no", sa.Integer(), nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), nullable=False),
        sa.Column("interval_ms", sa.Integer(), nullable=False),
        sa.Column("received", sa.LargeBinary(), nullable=False),
        sa.Column("late", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("agent_no", "hour_ms", name=op.f("pk_ledger_hours")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("ledger_hours")
    op.drop_table("ledger_gaps")
