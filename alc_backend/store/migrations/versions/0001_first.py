"""The tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("classes", JSON, nullable=False),
        sa.Column("former_names", JSON, nullable=True),
        sa.Column("dataset_project", sa.Integer(), nullable=True),
        sa.Column("query_project", sa.Integer(), nullable=True),
        sa.Column("brush_name", sa.String(), nullable=False),
        sa.Column("image_name", sa.String(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("other_tasks", sa.Integer(), nullable=False),
        sa.Column("other_images", sa.Integer(), nullable=False),
        sa.Column("warm_start", JSON, nullable=True),
        sa.Column("warm_start_error", sa.String(), nullable=True),
        sa.Column("reconciled_to", MOMENT, nullable=True),
        sa.Column("reconciled_task", sa.BigInteger(), nullable=True),
        sa.Column("reconciled_annotation", sa.BigInteger(), nullable=True),
        sa.Column("reconciled_at", MOMENT, nullable=True),
        sa.Column("reconciled_fully_at", MOMENT, nullable=True),
        sa.Column("tasks_gone_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("dataset_project", name="uq_projects_dataset_project"),
        sa.UniqueConstraint("name", name="uq_projects_name"),
        sa.UniqueConstraint("query_project", name="uq_projects_query_project"),
    )
    op.create_table(
        "arrivals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("dataset_task", sa.BigInteger(), nullable=False),
        sa.Column("claimed_by", sa.String(), nullable=True),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("heartbeat_at", MOMENT, nullable=True),
        sa.Column("retry_at", MOMENT, nullable=True),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("noted_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_arrivals_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_arrivals"),
        sa.UniqueConstraint(
            "project_id", "dataset_task", name="uq_arrivals_project_id_dataset_task"
        ),
    )
    op.create_table(
        "images",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("suffix", sa.String(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("has_truth", sa.Boolean(), nullable=False),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("dataset_task", sa.BigInteger(), nullable=True),
        sa.Column("initial_annotation", sa.BigInteger(), nullable=True),
        sa.Column("initial_annotation_at", MOMENT, nullable=True),
        sa.Column("warm_start", JSON, nullable=True),
        sa.Column("removed", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_images_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
        sa.UniqueConstraint("project_id", "split", "key", name="uq_images_project_id_split_key"),
        sqlite_autoincrement=True,
    )
    membership = ["project_id", "split", "removed", "dataset_task"]
    op.create_index("ix_images_membership", "images", membership, unique=False)
    op.create_index(
        "ix_images_truth",
        "images",
        ["project_id", "split"],
        unique=False,
        sqlite_where=sa.text("has_truth = 1"),
        postgresql_where=sa.text("has_truth"),
    )
    op.create_index("ix_images_dataset_task", "images", ["dataset_task"], unique=False)
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
    op.create_index("ix_inbox_waiting", "inbox", ["processed_at", "id"], unique=False)
    op.create_table(
        "rounds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("failed_in", sa.String(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("warning", sa.String(), nullable=True),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("ledger_position", sa.Integer(), nullable=True),
        sa.Column("answers", sa.Integer(), nullable=True),
        sa.Column("labeler_s", sa.Double(), nullable=True),
        sa.Column("expected_pixels", sa.Double(), nullable=True),
        sa.Column("corrected_pixels", sa.BigInteger(), nullable=True),
        sa.Column("worthwhile", sa.Integer(), nullable=True),
        sa.Column("data_miou", sa.Double(), nullable=True),
        sa.Column("model_miou", sa.Double(), nullable=True),
        sa.Column("class_iou", JSON, nullable=True),
        sa.Column("estimate", sa.Double(), nullable=True),
        sa.Column("estimate_answers", sa.Integer(), nullable=True),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("step_began_at", MOMENT, nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("pruned", sa.Boolean(), nullable=False),
        sa.Column("unasked", sa.Boolean(), nullable=False),
        sa.Column("displaced", sa.Boolean(), nullable=False),
        sa.Column("plans", sa.Integer(), nullable=False),
        sa.Column("plan_in_force", sa.Integer(), nullable=False),
        sa.Column("planned_to", sa.Integer(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("switched_at", MOMENT, nullable=True),
        sa.Column("opened_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_rounds_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_rounds"),
        sa.UniqueConstraint("project_id", "number", name="uq_rounds_project_id_number"),
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
    op.create_table(
        "attempts",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("annotation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("tried_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_attempts_image_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_attempts_project_id"),
        sa.PrimaryKeyConstraint("project_id", "annotation_id", name="pk_attempts"),
    )
    op.create_table(
        "unread_tasks",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("label_studio_project", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("noted_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_unread_tasks_project_id"),
        sa.PrimaryKeyConstraint(
            "project_id", "label_studio_project", "task_id", name="pk_unread_tasks"
        ),
    )
    op.create_table(
        "superpixels",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("shape", JSON, nullable=True),
        sa.Column("found", JSON, nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_superpixels_image_id"),
        sa.PrimaryKeyConstraint("id", name="pk_superpixels"),
        sa.UniqueConstraint("image_id", "number", name="uq_superpixels_image_id_number"),
    )
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("superpixel_id", sa.Integer(), nullable=True),
        sa.Column("annotation_id", sa.BigInteger(), nullable=False),
        sa.Column("label_studio_project", sa.Integer(), nullable=True),
        sa.Column("task_id", sa.BigInteger(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=True),
        sa.Column("proposed", sa.Integer(), nullable=True),
        sa.Column("pseudo_label", sa.Integer(), nullable=True),
        sa.Column("row", sa.Integer(), nullable=True),
        sa.Column("col", sa.Integer(), nullable=True),
        sa.Column("round_number", sa.Integer(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("adjudication", sa.Boolean(), nullable=False),
        sa.Column("changes", JSON, nullable=True),
        sa.Column("annotator", sa.String(), nullable=False),
        sa.Column("lead_time", sa.Double(), nullable=True),
        sa.Column("answered_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_ledger_image_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_ledger_project_id"),
        sa.ForeignKeyConstraint(
            ["superpixel_id"], ["superpixels.id"], name="fk_ledger_superpixel_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
        sa.UniqueConstraint(
            "project_id",
            "annotation_id",
            "position",
            "revision",
            name="uq_ledger_project_id_annotation_id_position_revision",
        ),
    )
    for name, columns in (
        ("order", ["project_id", "id"]),
        ("image_id", ["image_id", "superpixel_id"]),
        ("answered_at", ["project_id", "answered_at"]),
        ("annotator", ["project_id", "annotator", "answered_at"]),
        ("task_id", ["task_id", "label_studio_project"]),
    ):
        op.create_index(f"ix_ledger_{name}", "ledger", columns, unique=False)
    op.create_index("ix_ledger_superpixel_id", "ledger", ["superpixel_id"], unique=False)
    op.create_table(
        "queries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("superpixel_id", sa.Integer(), nullable=False),
        sa.Column("adjudication", sa.Boolean(), nullable=False),
        sa.Column("proposed", JSON, nullable=True),
        sa.Column("likely", JSON, nullable=True),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=True),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("col", sa.Integer(), nullable=False),
        sa.Column("pseudo_label", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("place", sa.Double(), nullable=True),
        sa.Column("expected", sa.Double(), nullable=True),
        sa.Column("audited", sa.Integer(), nullable=True),
        sa.Column("chosen_in", sa.Integer(), nullable=True),
        sa.Column("digest", sa.String(), nullable=True),
        sa.Column("closed_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_queries_round_id"),
        sa.ForeignKeyConstraint(
            ["superpixel_id"], ["superpixels.id"], name="fk_queries_superpixel_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_queries"),
        sa.UniqueConstraint(
            "superpixel_id", "adjudication", name="uq_queries_superpixel_id_adjudication"
        ),
        sa.UniqueConstraint("task_id", name="uq_queries_task_id"),
    )
    for name, columns in (
        ("round_id", ["round_id", "task_id", "closed_at", "superpixel_id"]),
        ("closed_at", ["closed_at"]),
        ("adjudication", ["adjudication", "round_id"]),
    ):
        op.create_index(f"ix_queries_{name}", "queries", columns, unique=False)
    op.create_table(
        "scores",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("superpixel_id", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("col", sa.Integer(), nullable=False),
        sa.Column("pseudo_label", sa.Integer(), nullable=False),
        sa.Column("dominant", sa.Integer(), nullable=False),
        sa.Column("likely", JSON, nullable=True),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_scores_round_id"),
        sa.ForeignKeyConstraint(
            ["superpixel_id"], ["superpixels.id"], name="fk_scores_superpixel_id"
        ),
        sa.PrimaryKeyConstraint("round_id", "superpixel_id", name="pk_scores"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pages",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("proposed", sa.Integer(), nullable=False),
        sa.Column("plan", sa.Integer(), nullable=False),
        sa.Column("place", sa.Double(), nullable=False),
        sa.Column("review", sa.Boolean(), nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=True),
        sa.Column("sheet", sa.String(), nullable=True),
        sa.Column("closed_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_pages_project_id"),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_pages_round_id"),
        sa.PrimaryKeyConstraint("id", name="pk_pages"),
        sa.UniqueConstraint("project_id", "key", name="uq_pages_project_id_key"),
        sa.UniqueConstraint("task_id", name="uq_pages_task_id"),
    )
    op.create_index("ix_pages_round_id", "pages", ["round_id"], unique=False)
    op.create_table(
        "tiles",
        sa.Column("page_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("superpixel_id", sa.Integer(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("col", sa.Integer(), nullable=False),
        sa.Column("pseudo_label", sa.Integer(), nullable=False),
        sa.Column("expected", sa.Double(), nullable=True),
        sa.Column("repeated", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["page_id"], ["pages.id"], name="fk_tiles_page_id"),
        sa.ForeignKeyConstraint(
            ["superpixel_id"], ["superpixels.id"], name="fk_tiles_superpixel_id"
        ),
        sa.PrimaryKeyConstraint("page_id", "position", name="pk_tiles"),
    )
    op.create_index("ix_tiles_superpixel_id", "tiles", ["superpixel_id"], unique=False)
    op.create_table(
        "standing",
        sa.Column("superpixel_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("entry_id", sa.Integer(), nullable=True),
        sa.Column("class_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(), nullable=True),
        sa.Column("way", sa.String(), nullable=True),
        sa.Column("waiting", sa.Boolean(), nullable=False),
        sa.Column("disputed", JSON, nullable=True),
        sa.ForeignKeyConstraint(["entry_id"], ["ledger.id"], name="fk_standing_entry_id"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_standing_image_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_standing_project_id"),
        sa.ForeignKeyConstraint(
            ["superpixel_id"], ["superpixels.id"], name="fk_standing_superpixel_id"
        ),
        sa.PrimaryKeyConstraint("superpixel_id", name="pk_standing"),
    )
    op.create_index("ix_standing_image_id", "standing", ["image_id"], unique=False)
    for name in ("kind", "way"):
        columns = ["project_id", name, "superpixel_id"]
        op.create_index(f"ix_standing_{name}", "standing", columns, unique=False)
    op.create_index(
        "ix_standing_class", "standing", ["project_id", "class_id", "entry_id"], unique=False
    )
    op.create_index(
        "ix_standing_disputed",
        "standing",
        ["project_id", "superpixel_id"],
        unique=False,
        sqlite_where=sa.text("disputed IS NOT NULL"),
        postgresql_where=sa.text("disputed IS NOT NULL"),
    )
    op.create_table(
        "tallies",
        sa.Column("project_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("about", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_tallies_project_id"),
        sa.PrimaryKeyConstraint("project_id", "what", "who", "about", "number", name="pk_tallies"),
    )
    op.create_table(
        "image_states",
        sa.Column("image_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("last_entry", sa.Integer(), nullable=True),
        sa.Column("corrected", sa.Integer(), server_default="0", nullable=False),
        sa.Column("doubt", sa.Integer(), nullable=True),
        sa.Column("pixels", JSON, nullable=True),
        sa.Column("pixels_to", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_image_states_image_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_image_states_project_id"),
        sa.PrimaryKeyConstraint("image_id", name="pk_image_states"),
    )
    columns = ["project_id", "last_entry"]
    op.create_index("ix_image_states_last_entry", "image_states", columns, unique=False)
    for name in ("corrected", "doubt"):
        columns = ["project_id", name, "image_id"]
        op.create_index(f"ix_image_states_{name}", "image_states", columns, unique=False)
    _create_those_of_cvat()


def _create_those_of_cvat() -> None:
    op.create_table(
        "cvat_projects",
        sa.Column("project_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("questions", sa.Integer(), nullable=True),
        sa.Column("collected_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_cvat_projects_project_id"
        ),
        sa.PrimaryKeyConstraint("project_id", name="pk_cvat_projects"),
        sa.UniqueConstraint("questions", name="uq_cvat_projects_questions"),
        sa.UniqueConstraint("source", "number", name="uq_cvat_projects_source_number"),
    )
    op.create_table(
        "cvat_frames",
        sa.Column("image_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("frame", sa.Integer(), nullable=False),
        sa.Column("label_map", sa.String(), nullable=True),
        sa.Column("shapes", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_cvat_frames_image_id"),
        sa.PrimaryKeyConstraint("image_id", name="pk_cvat_frames"),
    )
    op.create_table(
        "cvat_tasks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("task", sa.Integer(), nullable=True),
        sa.Column("gone_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_cvat_tasks_project_id"),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_cvat_tasks_round_id"),
        sa.PrimaryKeyConstraint("id", name="pk_cvat_tasks"),
        sa.UniqueConstraint("round_id", name="uq_cvat_tasks_round_id"),
    )
    op.create_index("ix_cvat_tasks_project_id", "cvat_tasks", ["project_id"], unique=False)
    op.create_table(
        "cvat_jobs",
        sa.Column("job", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cvat_task_id", sa.Integer(), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.Column("read_to", MOMENT, nullable=True),
        sa.Column("reported_at", MOMENT, nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", MOMENT, nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["cvat_task_id"], ["cvat_tasks.id"], name="fk_cvat_jobs_cvat_task_id"
        ),
        sa.PrimaryKeyConstraint("job", name="pk_cvat_jobs"),
    )
    op.create_index("ix_cvat_jobs_cvat_task_id", "cvat_jobs", ["cvat_task_id"], unique=False)
    op.create_index(
        "ix_cvat_jobs_reported",
        "cvat_jobs",
        ["reported_at"],
        unique=False,
        sqlite_where=sa.text("reported_at IS NOT NULL"),
        postgresql_where=sa.text("reported_at IS NOT NULL"),
    )
    op.create_table(
        "cvat_questions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cvat_task_id", sa.Integer(), nullable=False),
        sa.Column("frame", sa.Integer(), nullable=False),
        sa.Column("query_id", sa.Integer(), nullable=False),
        sa.Column("preset", sa.Integer(), nullable=False),
        sa.Column("round_number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cvat_task_id"], ["cvat_tasks.id"], name="fk_cvat_questions_cvat_task_id"
        ),
        sa.ForeignKeyConstraint(["query_id"], ["queries.id"], name="fk_cvat_questions_query_id"),
        sa.PrimaryKeyConstraint("id", name="pk_cvat_questions"),
        sa.UniqueConstraint("cvat_task_id", "frame", name="uq_cvat_questions_cvat_task_id_frame"),
        sqlite_autoincrement=True,
    )
