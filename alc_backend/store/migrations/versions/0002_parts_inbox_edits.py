"""Parts of steps, the inbox, adjudication, edits; queries without what can be made again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from alc_backend.labelstudio.query import digest
from alc_backend.store.models import NAMES

revision = "0002"
down_revision = "0001"

MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    """Keep every answer; a round that was running when the program was replaced has failed."""
    op.create_table(
        "inbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("label_studio_project", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", MOMENT, nullable=True),
        sa.Column("processed_at", MOMENT, nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_inbox_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_inbox"),
    )
    op.create_index("ix_inbox_waiting", "inbox", ["processed_at", "id"])
    op.create_table(
        "withdrawals",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("annotation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("noted_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_withdrawals_project_id"),
        sa.PrimaryKeyConstraint("project_id", "annotation_id", name="pk_withdrawals"),
    )
    op.create_table(
        "parts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("work", JSON, nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("claimed_by", sa.String(), nullable=True),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("heartbeat_at", MOMENT, nullable=True),
        sa.Column("retry_at", MOMENT, nullable=True),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_parts_round_id"),
        sa.PrimaryKeyConstraint("id", name="pk_parts"),
        sa.UniqueConstraint("round_id", "step", "number", name="uq_parts_round_id_step_number"),
    )
    _change_answers()
    _change_queries()
    with _table("images") as table:
        table.add_column(sa.Column("initial_annotation", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("initial_annotation_at", MOMENT, nullable=True))
        table.alter_column("dataset_task", existing_type=sa.Integer(), type_=sa.BigInteger())
    with _table("projects") as table:
        table.add_column(sa.Column("overlap", sa.Integer(), nullable=False, server_default="1"))
        table.add_column(sa.Column("other_tasks", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("reconciled_to", MOMENT, nullable=True))
        table.add_column(sa.Column("reconciled_at", MOMENT, nullable=True))
    with _table("superpixels") as table:
        table.add_column(sa.Column("shape", JSON, nullable=True))
    op.execute(
        "UPDATE rounds SET failed_in = state, state = 'failed', error = 'interrupted by an upgrade "
        "of the program; start the round again' "
        "WHERE state IN ('created', 'training', 'scoring', 'publishing')"
    )
    with _table("rounds") as table:
        for name in ("pruned", "unasked"):
            table.add_column(
                sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())
            )
        table.drop_column("heartbeat_at")
        table.drop_column("claimed_by")


def _change_answers() -> None:
    with _table("answers") as table:
        table.add_column(sa.Column("image_id", sa.Integer(), nullable=True))
        table.add_column(sa.Column("overlap", sa.Integer(), nullable=False, server_default="1"))
        table.add_column(
            sa.Column("adjudication", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        table.add_column(sa.Column("changes", JSON, nullable=True))
    op.execute(
        "UPDATE answers SET image_id = "
        "(SELECT image_id FROM superpixels WHERE superpixels.id = answers.superpixel_id)"
    )
    with _table("answers") as table:
        table.alter_column("image_id", existing_type=sa.Integer(), nullable=False)
        for name in ("superpixel_id", "pseudo_label", "row", "col"):
            table.alter_column(name, existing_type=sa.Integer(), nullable=True)
        table.alter_column("annotation_id", existing_type=sa.Integer(), type_=sa.BigInteger())
        table.drop_index("answers_by_superpixel")
        table.create_index("ix_answers_image_id", ["image_id"])
        table.create_index("ix_answers_superpixel_id", ["superpixel_id"])
        table.create_foreign_key("fk_answers_image_id", "images", ["image_id"], ["id"])


def _change_queries() -> None:
    queries = sa.table(
        "queries",
        sa.column("id", sa.Integer()),
        sa.column("published", JSON),
        sa.column("digest", sa.String()),
    )
    with _table("queries") as table:
        table.add_column(
            sa.Column("adjudication", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        table.add_column(sa.Column("proposed", JSON, nullable=True))
        table.add_column(sa.Column("digest", sa.String(), nullable=True))
        table.add_column(sa.Column("closed_at", MOMENT, nullable=True))
    connection = op.get_bind()
    for row in connection.execute(sa.select(queries.c.id, queries.c.published)).all():
        if row.published is not None:
            known = queries.update().where(queries.c.id == row.id)
            connection.execute(known.values(digest=digest(row.published)))
    with _table("queries") as table:
        for name in ("prediction", "task", "published"):
            table.drop_column(name)
        table.alter_column("digest", new_column_name="published")
        table.alter_column("task_id", existing_type=sa.Integer(), type_=sa.BigInteger())
        table.drop_constraint("uq_queries_superpixel_id", type_="unique")
        table.create_unique_constraint(
            "uq_queries_superpixel_id_adjudication", ["superpixel_id", "adjudication"]
        )
        table.create_index("ix_queries_round_id", ["round_id"])


def _table(name: str):  # type: ignore[no-untyped-def]
    """A table under change; SQLite's constraints had no names before."""
    return op.batch_alter_table(name, naming_convention=NAMES)
