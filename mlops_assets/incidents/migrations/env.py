"""Run by Alembic, inside the transaction that `database` has opened: a migration is done whole or not at all."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["metadata"],
    transactional_ddl=True,  # Alembic's default for SQLite is off; with BEGIN IMMEDIATE it holds there too
)
with context.begin_transaction():
    context.run_migrations()
