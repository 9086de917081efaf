"""The tables of `samples.db`: rounds raw and compacted, roll-ups, and what is kept beside them. For the schema only:
reading and writing them is raw SQL. Times are unix milliseconds.
"""
# No `from __future__ import annotations` here: SQLModel needs real annotations.

from sqlalchemy import Index, LargeBinary, MetaData
from sqlmodel import Field, SQLModel

from .models import NAMING, unix_ms


class SamplesBase(SQLModel):
    """Tables of `samples.db`: one writer, raw SQL; these classes exist for the schema only."""

    metadata = MetaData(naming_convention=NAMING)


class RoundRow(SamplesBase, table=True):
    """One agent's one pass over its targets. `samples` = int32 little-endian per target of set `revision`."""

    __tablename__ = "rounds"
    __table_args__ = ({"sqlite_with_rowid": False},)
    agent_no: int = Field(primary_key=True)
    started_ms: int = unix_ms(primary_key=True)
    epoch_no: int = Field(primary_key=True)
    seq: int = unix_ms(primary_key=True)
    revision: int
    flags: int
    received_ms: int = unix_ms()
    samples: bytes = Field(sa_type=LargeBinary)


class ChunkRow(SamplesBase, table=True):
    """Rounds of one agent, target set and hour, transposed and compressed (`chunks.py`); dropped, never changed."""

    __tablename__ = "chunks"
    __table_args__ = (Index("ix_chunks_agent", "agent_no", "first_ms"), Index("ix_chunks_last", "last_ms"))
    no: int | None = Field(default=None, primary_key=True)
    agent_no: int
    revision: int
    first_ms: int = unix_ms()
    last_ms: int = unix_ms()
    rounds: int
    width: int
    tile_columns: int
    tile_rounds: int
    heads: bytes = Field(sa_type=LargeBinary)
    bases: bytes = Field(sa_type=LargeBinary)
    ends: bytes = Field(sa_type=LargeBinary)
    data: bytes = Field(sa_type=LargeBinary)
    crc: int = unix_ms()


class MinuteRollups(SamplesBase, table=True):
    """The minutes of an hour (counted from 1970) of one agent and 32 targets, as `rollups.py` packs them."""

    __tablename__ = "minute_rollups"
    __table_args__ = (Index("ix_minute_rollups_hour", "hour"),)
    agent_no: int = Field(primary_key=True)
    shelf: int = Field(primary_key=True)
    hour: int = Field(primary_key=True)
    data: bytes = Field(sa_type=LargeBinary)


class HourRollups(SamplesBase, table=True):
    """The same for the hour as a whole."""

    __tablename__ = "hour_rollups"
    __table_args__ = (Index("ix_hour_rollups_hour", "hour"),)
    agent_no: int = Field(primary_key=True)
    shelf: int = Field(primary_key=True)
    hour: int = Field(primary_key=True)
    data: bytes = Field(sa_type=LargeBinary)


class RolledHour(SamplesBase, table=True):
    """How many rounds of an agent's hour are worked into its roll-ups."""

    __tablename__ = "rolled_hours"
    agent_no: int = Field(primary_key=True)
    hour: int = Field(primary_key=True)
    rounds: int


class Epoch(SamplesBase, table=True):
    """How far the rounds of one run of an agent are committed; moves in the transaction of the rounds."""

    __tablename__ = "epochs"
    __table_args__ = (Index("ux_epochs_agent", "agent_no", "epoch", unique=True), {"sqlite_autoincrement": True})
    no: int | None = Field(default=None, primary_key=True)
    agent_no: int
    epoch: str = Field(max_length=16)
    upto: int = unix_ms()
    changed_ms: int = unix_ms()


class ServerUp(SamplesBase, table=True):
    """A time in which a server ran and could write, kept up every few seconds: between two of these nobody looked."""

    __tablename__ = "server_up"
    __table_args__ = ({"sqlite_with_rowid": False},)
    from_ms: int = unix_ms(primary_key=True)
    to_ms: int = unix_ms()


class ClockOffset(SamplesBase, table=True):
    """From `since_ms` (our time of receipt) on, an agent's clock was `offset_ms` ahead of ours; 0 = about right."""

    __tablename__ = "clock_offsets"
    __table_args__ = ({"sqlite_with_rowid": False},)
    agent_no: int = Field(primary_key=True)
    since_ms: int = unix_ms(primary_key=True)
    offset_ms: int = unix_ms()


class LedgerHour(SamplesBase, table=True):
    """Which rounds of an agent are there, and which came late: a bit per interval of the hour (`store/slots.py`).

    The hour leads the key: all agents write into the present one, and so into few pages.
    """

    __tablename__ = "ledger_hours"
    __table_args__ = ({"sqlite_with_rowid": False},)
    hour_ms: int = unix_ms(primary_key=True)
    agent_no: int = Field(primary_key=True)
    interval_ms: int
    received: bytes = Field(sa_type=LargeBinary)
    late: bytes = Field(sa_type=LargeBinary)


class LedgerGap(SamplesBase, table=True):
    """Why rounds of an agent are missing in this time, where somebody said so; it counts where none came after all."""

    __tablename__ = "ledger_gaps"
    __table_args__ = ({"sqlite_with_rowid": False},)
    agent_no: int = Field(primary_key=True)
    from_ms: int = unix_ms(primary_key=True)
    to_ms: int = unix_ms(primary_key=True)
    reason: str = Field(primary_key=True, max_length=16)
