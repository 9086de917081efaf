"""The tables of `pingmon.db`, the directory. Those of `samples.db` are in sample_tables.py.

Times are unix milliseconds (integers), but for the columns of Flask-Security, which are aware datetimes. Places that a
later stage fills (public keys, pepper rotation) are here from the first revision, so that no table changes its shape.
"""
# No `from __future__ import annotations` here: SQLModel resolves Relationship() from real annotations.

from datetime import datetime
from typing import Any

from flask_security.core import RoleMixin, UserMixin
from flask_security.datastore import AsaList
from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, Text, false, text
from sqlalchemy.ext.mutable import MutableList
from sqlmodel import Field, Relationship, SQLModel

# Batch migrations on SQLite can only find constraints that have a name.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class DirectoryBase(SQLModel):
    """Tables of `pingmon.db`: few rows, ORM, short transactions."""

    metadata = MetaData(naming_convention=NAMING)


def unix_ms(**options: Any) -> Any:
    """A column of unix milliseconds."""
    return Field(sa_type=BigInteger, **options)


class UserRole(DirectoryBase, table=True):
    """Which user has which role."""

    __tablename__ = "user_roles"
    user_id: int = Field(foreign_key="users.id", primary_key=True, ondelete="CASCADE")
    role_id: int = Field(foreign_key="roles.id", primary_key=True, ondelete="CASCADE")


class Role(RoleMixin, DirectoryBase, table=True):
    """viewer, operator or admin."""

    __tablename__ = "roles"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=80)
    description: str | None = Field(default=None, max_length=255)
    permissions: list[str] | None = Field(default=None, sa_column=Column(MutableList.as_mutable(AsaList())))


class User(UserMixin, DirectoryBase, table=True):
    """Somebody who may sign in. The mixin stands first: pydantic's `__eq__` would make the class unhashable."""

    __tablename__ = "users"  # "user" is a reserved word in PostgreSQL
    id: int | None = Field(default=None, primary_key=True)
    email: str = Field(unique=True, max_length=255)
    password: str | None = Field(default=None, max_length=255)
    active: bool = True
    fs_uniquifier: str = Field(unique=True, max_length=64)
    fs_token_uniquifier: str | None = Field(default=None, unique=True, max_length=64)
    auth_epoch: int = 1
    created_at: datetime
    current_login_at: datetime | None = None
    last_login_at: datetime | None = None
    current_login_ip: str | None = Field(default=None, max_length=64)
    last_login_ip: str | None = Field(default=None, max_length=64)
    login_count: int | None = None
    roles: list[Role] = Relationship(link_model=UserRole)


class OneTimeLink(DirectoryBase, table=True):
    """A link that makes the first admin: only its hash is kept."""

    __tablename__ = "one_time_links"
    token_hash: str = Field(primary_key=True, max_length=64)
    purpose: str = Field(max_length=32)
    created_ms: int = unix_ms()
    expires_ms: int = unix_ms()
    used_ms: int | None = unix_ms(default=None)


class Passphrase(DirectoryBase, table=True):
    """What an agent shows to be allowed to ask for approval: HMAC only, never the secret."""

    __tablename__ = "passphrases"
    id: str = Field(primary_key=True, max_length=8)
    label: str = Field(max_length=80)
    digest: bytes = Field(sa_type=LargeBinary)
    pepper_id: str = Field(max_length=16)
    legacy: bool
    max_uses: int
    uses: int = 0
    created_ms: int = unix_ms()
    expires_ms: int = unix_ms()
    revoked_ms: int | None = unix_ms(default=None)
    created_by: str = Field(max_length=255)
    # JSON list of networks from which it may be used; none = from everywhere
    networks: str = Field(default="[]", max_length=2000, sa_column_kwargs={"server_default": "[]"})
    legacy_until_ms: int | None = unix_ms(default=None)


class Agent(DirectoryBase, table=True):
    """An agent that asked for approval. `no` is internal and compact, `uid` is what the world sees.

    It is who holds its key; only legacy agents, which have none, are hostname and passphrase. `allowed` is a JSON list
    of addresses and networks it may come from; `revision` rises with all that somebody who approves it looks at.
    """

    __tablename__ = "agents"
    __table_args__ = (
        Index(
            "ux_agents_live",
            "hostname",
            "passphrase_id",
            unique=True,
            sqlite_where=text("deleted_ms IS NULL AND key_fingerprint IS NULL"),
            postgresql_where=text("deleted_ms IS NULL AND key_fingerprint IS NULL"),
        ),
        Index(
            "ux_agents_key",
            "key_fingerprint",
            unique=True,
            sqlite_where=text("deleted_ms IS NULL"),
            postgresql_where=text("deleted_ms IS NULL"),
        ),
        {"sqlite_autoincrement": True},  # a number is never used again: samples of a deleted agent stay nobody else's
    )
    no: int | None = Field(default=None, primary_key=True)
    uid: str = Field(unique=True, max_length=36)
    hostname: str = Field(max_length=253, index=True)
    passphrase_id: str | None = Field(default=None, foreign_key="passphrases.id")
    public_key: bytes | None = Field(default=None, sa_type=LargeBinary)
    key_fingerprint: str | None = Field(default=None, max_length=43)
    state: str = Field(max_length=16)
    hold_reason: str | None = Field(default=None, max_length=32)
    auth_epoch: int = 1
    ip_address: str = Field(max_length=45)
    observed_ip: str = Field(max_length=45)
    previous_ip: str | None = Field(default=None, max_length=45)
    version: str = Field(max_length=32)
    legacy: bool
    mesh: bool = True
    registered_ms: int = unix_ms()
    seen_ms: int = unix_ms()
    decided_ms: int | None = unix_ms(default=None)
    decided_by: str | None = Field(default=None, max_length=255)
    deleted_ms: int | None = unix_ms(default=None)
    allowed: str = Field(default="[]", max_length=2000, sa_column_kwargs={"server_default": "[]"})
    observed_ignored: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    revision: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    approved_ms: int | None = unix_ms(default=None)  # for the first time


class Target(DirectoryBase, table=True):
    """Something to ping. Removed targets stay, so that old rounds keep their names. `probe` is JSON;
    `adopted`: it was there before its agent was approved, and stays when the agent goes.
    """

    __tablename__ = "targets"
    __table_args__ = (
        Index(
            "ux_targets_live",
            "name",
            unique=True,
            sqlite_where=text("removed_ms IS NULL"),
            postgresql_where=text("removed_ms IS NULL"),
        ),
        {"sqlite_autoincrement": True},
    )
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=253)
    address: str = Field(max_length=253)
    agent_no: int | None = Field(default=None, foreign_key="agents.no")
    adopted: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    probe: str = Field(default="{}", max_length=400, sa_column_kwargs={"server_default": "{}"})
    created_ms: int = unix_ms()
    removed_ms: int | None = unix_ms(default=None)


class TargetSet(DirectoryBase, table=True):
    """What one agent was told to ping under one revision; never changed. `target_ids` = int32 little-endian,
    one per column: a target that is probed several times a round stands there as often.
    """

    __tablename__ = "target_sets"
    agent_no: int = Field(primary_key=True, foreign_key="agents.no")
    revision: int = Field(primary_key=True)
    target_ids: bytes = Field(sa_type=LargeBinary)
    created_ms: int = unix_ms()


class TargetRefusals(DirectoryBase, table=True):
    """What an agent's host refuses to ping, as the agent said last. `refused` is JSON."""

    __tablename__ = "target_refusals"
    agent_no: int = Field(primary_key=True, foreign_key="agents.no")
    at_ms: int = unix_ms()
    refused: str = Field(sa_type=Text)


class Audit(DirectoryBase, table=True):
    """Who decided what, written in the transaction of the decision itself."""

    __tablename__ = "audit"
    id: int | None = Field(default=None, primary_key=True)
    at_ms: int = unix_ms()
    actor: str = Field(max_length=255)
    action: str = Field(max_length=64)
    subject: str = Field(max_length=255)
    detail: str | None = Field(default=None, max_length=2000)


class DirectoryRevision(DirectoryBase, table=True):
    """One row: rises with each change, so a running server sees what the command line did."""

    __tablename__ = "directory_revision"
    id: int = Field(primary_key=True)
    revision: int
