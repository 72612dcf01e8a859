"""Alembic's entry: runs the migrations in the transaction that the caller opened."""

from alembic import context

from alc_backend.store.incoming import Event

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Event.metadata,
    render_as_batch=True,
)
context.run_migrations()
