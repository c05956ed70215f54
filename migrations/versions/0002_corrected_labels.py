"""Corrected labels and influences in previews.

Files exported so far are made again when they are next asked for, so that no bundle holds files of both forms.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("result_preview", schema=None) as batch_op:
        batch_op.add_column(sa.Column("label", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("corrected", sa.Boolean(), nullable=True))
        batch_op.add_column(sa.Column("influences", sa.JSON(), nullable=True))
        batch_op.alter_column("given_label", existing_type=sa.Text(), nullable=True)
        batch_op.alter_column("noise_score", existing_type=sa.Float(), nullable=True)
        batch_op.alter_column("score", existing_type=sa.Float(), nullable=True)
    preview = sa.table(
        "result_preview",
        sa.column("given_label", sa.Text()),
        sa.column("label", sa.Text()),
        sa.column("corrected", sa.Boolean()),
        sa.column("influences", sa.JSON()),
    )
    op.execute(preview.update().values(label=preview.c.given_label, corrected=sa.false(), influences=[]))
    with op.batch_alter_table("result_preview", schema=None) as batch_op:
        batch_op.alter_column("label", existing_type=sa.Text(), nullable=False)
        batch_op.alter_column("corrected", existing_type=sa.Boolean(), nullable=False)
        batch_op.alter_column("influences", existing_type=sa.JSON(), nullable=False)
    op.execute("DELETE FROM result_export")


def downgrade() -> None:
    op.execute("DELETE FROM result_preview WHERE given_label IS NULL")
    op.execute("DELETE FROM result_export")
    with op.batch_alter_table("result_preview", schema=None) as batch_op:
        batch_op.alter_column("score", existing_type=sa.Float(), nullable=False)
        batch_op.alter_column("noise_score", existing_type=sa.Float(), nullable=False)
        batch_op.alter_column("given_label", existing_type=sa.Text(), nullable=False)
        batch_op.drop_column("influences")
        batch_op.drop_column("corrected")
        batch_op.drop_column("label")
