"""Roll-ups: minutes and hours."""

import sqlalchemy as sa
from alembic import op

revision = "samples_0006"
down_revision = "samples_0005"
branch_labels = None
depends_on = None

TABLES = ("minute_rollups", "hour_rollups")


def upgrade() -> None:
    for name in TABLES:
        op.create_table(
            name,
            sa.Column("agent_no", sa.Integer(), nullable=False),
            sa.Column("shelf", sa.Integer(), nullable=False),
            sa.Column("hour", sa.Integer(), nullable=False),
            sa.Column("data", sa.LargeBinary(), nullable=False),
            sa.PrimaryKeyConstraint("agent_no", "shelf", "hour", name=op.f(f"pk_{name}")),
        )
        op.create_index(f"ix_{name}_hour", name, ["hour"], unique=False)
    op.create_table(
        "rolled_hours",
        sa.Column("agent_no", sa.Integer(), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("agent_no", "hour", name=op.f("pk_rolled_hours")),
    )


def downgrade() -> None:
    op.drop_table("rolled_hours")
    for name in TABLES:
        op.drop_index(f"ix_{name}_hour", name)
        op.drop_table(name)
