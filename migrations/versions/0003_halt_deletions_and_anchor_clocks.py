"""Halt deletions whose job broke off; remember what the wall clock said.

Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "clock_anchors",
        sa.Column("boot_id", sa.String(length=40), nullable=False),
        sa.Column("wall_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mono_ns", sa.BigInteger(), nullable=False),
        sa.Column("known_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmed_by", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(
            ["confirmed_by"], ["accounts.id"], name=op.f("fk_clock_anchors_confirmed_by_accounts")
        ),
        sa.PrimaryKeyConstraint("boot_id", name=op.f("pk_clock_anchors")),
    )
    op.add_column("deletions", sa.Column("halted_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("deletions", "halted_at")
    op.drop_table("clock_anchors")
