"""What agents refuse to ping."""

import sqlalchemy as sa
from alembic import op

revision = "directory_0004"
down_revision = "directory_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "target_refusals",
        sa.Column("agent_no", sa.Integer(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["agent_no"], ["agents.no"], name=op.f("fk_target_refusals_agent_no_agents")),
        sa.PrimaryKeyConstraint("agent_no", name=op.f("pk_target_refusals")),
    )


def downgrade() -> None:
    op.drop_table("target_refusals")
