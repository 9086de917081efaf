"""When the server was up."""

import sqlalchemy as sa
from alembic import op

revision = "samples_0003"
down_revision = "samples_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "server_up",
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("to_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("from_ms", name=op.f("pk_server_up")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("server_up")
