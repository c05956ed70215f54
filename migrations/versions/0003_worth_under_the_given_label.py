"""What a row is worth under its given label.

Files exported so far are made again when they are next asked for, so that no bundle holds files of both forms.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DELETE FROM result_export")


def downgrade() -> None:
    op.execute("DELETE FROM result_export")
