"""Influences as a table of their own; what a row is worth under its given label.

Jobs that finished before have neither. Files exported so far are made again when they are next asked for, so that no
bundle holds files of both forms.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "result_influences",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_result_influences_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_result_influences")),
    )
    op.execute("DELETE FROM result_export")


def downgrade() -> None:
    op.execute("DELETE FROM result_export")
    op.drop_table("result_influences")
