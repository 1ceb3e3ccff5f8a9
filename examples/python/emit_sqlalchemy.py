"""An event in the session of the row that it is about, with SQLAlchemy's ORM: both are flushed, and committed, together.

DATABASE_URL=postgresql+psycopg://app@localhost/app python emit_sqlalchemy.py run-1
"""

import os
import sys
import uuid
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Run(Base):
    __tablename__ = "run"
    id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]


class Event(Base):
    """Inserting here is emitting. What is not given the database fills in."""

    __tablename__ = "event"
    __table_args__ = {"schema": "klaxon"}
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("klaxon.uuid_v7()"))
    type: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)


run_id = sys.argv[1]

with Session(create_engine(os.environ["DATABASE_URL"])) as session, session.begin():
    session.add(Run(id=run_id, status="failed"))
    session.add(Event(type="run.failed", payload={"run_id": run_id, "branch": "main", "failed_tests": 3}))
    if run_id.endswith("broken"):
        raise SystemExit("something else went wrong: nobody is told anything")
