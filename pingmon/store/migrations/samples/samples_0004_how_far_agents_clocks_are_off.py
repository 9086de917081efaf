"""How far agents' clocks are off."""

import sqlalchemy as sa
from alembic import op

revision = "samples_0004"
down_revision = "samples_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "clock_offsets",
        sa.Column("agent_no", sa.Integer(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("offset_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent_no", "since_ms", name=op.f("pk_clock_offsets")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("clock_offsets")
