"""Agents are keys: unique among those not deleted, with the addresses they may come from; passphrases with scopes."""

import time

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "directory_0003"
down_revision = "directory_0002"
branch_labels = None
depends_on = None

LIVE = "deleted_ms IS NULL"
KEYLESS = "deleted_ms IS NULL AND key_fingerprint IS NULL"
LEGACY_MS = 30 * 86_400_000  # what exists gets as long as the longest that can be made


def _live_index(batch_op: BatchOperations, where: str) -> None:
    text = sa.text(where)
    batch_op.create_index(
        "ux_agents_live", ["hostname", "passphrase_id"], unique=True, sqlite_where=text, postgresql_where=text
    )


def upgrade() -> None:
    with op.batch_alter_table("passphrases", schema=None) as batch_op:
        batch_op.add_column(sa.Column("networks", sa.String(length=2000), server_default="[]", nullable=False))
        batch_op.add_column(sa.Column("legacy_until_ms", sa.BigInteger(), nullable=True))
    until = int(time.time() * 1000) + LEGACY_MS
    op.execute(sa.text("UPDATE passphrases SET legacy_until_ms = :until WHERE legacy").bindparams(until=until))
    with op.batch_alter_table("agents", schema=None) as batch_op:
        batch_op.add_column(sa.Column("allowed", sa.String(length=2000), server_default="[]", nullable=False))
        batch_op.add_column(sa.Column("observed_ignored", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("revision", sa.Integer(), server_default="1", nullable=False))
        batch_op.add_column(sa.Column("approved_ms", sa.BigInteger(), nullable=True))
        batch_op.drop_constraint(batch_op.f("uq_agents_key_fingerprint"), type_="unique")
        batch_op.drop_index("ux_agents_live")
        _live_index(batch_op, KEYLESS)
        text = sa.text(LIVE)
        batch_op.create_index(
            "ux_agents_key", ["key_fingerprint"], unique=True, sqlite_where=text, postgresql_where=text
        )


def downgrade() -> None:
    with op.batch_alter_table("agents", schema=None) as batch_op:
        batch_op.drop_index("ux_agents_key")
        batch_op.drop_index("ux_agents_live")
        _live_index(batch_op, LIVE)
        batch_op.create_unique_constraint(batch_op.f("uq_agents_key_fingerprint"), ["key_fingerprint"])
        for name in ("approved_ms", "revision", "observed_ignored", "allowed"):
            batch_op.drop_column(name)
    with op.batch_alter_table("passphrases", schema=None) as batch_op:
        batch_op.drop_column("legacy_until_ms")
        batch_op.drop_column("networks")
