"""Pictures that wait for their first label maps, where those come from; likely classes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from alc_backend.store.models import NAMES

revision = "0003"
down_revision = "0002"

MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    """Add a table and columns; nothing that is there changes."""
    op.create_table(
        "arrivals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("dataset_task", sa.BigInteger(), nullable=False),
        sa.Column("claimed_by", sa.String(), nullable=True),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("heartbeat_at", MOMENT, nullable=True),
        sa.Column("retry_at", MOMENT, nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("noted_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_arrivals_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_arrivals"),
        sa.UniqueConstraint(
            "project_id", "dataset_task", name="uq_arrivals_project_id_dataset_task"
        ),
    )
    for table, name in (
        ("projects", "warm_start"),
        ("images", "warm_start"),
        ("superpixels", "found"),
        ("scores", "likely"),
        ("queries", "likely"),
    ):
        with op.batch_alter_table(table, naming_convention=NAMES) as changed:
            changed.add_column(sa.Column(name, JSON, nullable=True))
    with op.batch_alter_table("projects", naming_convention=NAMES) as changed:
        changed.add_column(sa.Column("warm_start_error", sa.String(), nullable=True))
