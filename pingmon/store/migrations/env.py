"""Run by alembic only: the connection and the tables come from `pingmon.store.schema`, never from an ini file."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlmodel import AutoString
from sqlmodel.sql.sqltypes import UTCDateTime


def render(kind: str, item: Any, _autogen: AutogenContext) -> str | Literal[False]:
    """Revisions outlive the library that first described a column: plain strings stay plain strings."""
    if kind == "type" and isinstance(item, AutoString):
        return f"sa.String(length={item.length})"
    if kind == "type" and isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False


attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    target_metadata=attributes["metadata"],
    render_item=render,
    render_as_batch=True,  # SQLite changes a table by building it anew
)
with context.begin_transaction():
    context.run_migrations()
