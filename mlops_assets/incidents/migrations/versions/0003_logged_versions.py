"""The versions that the platform has logged, with the digest of their files; which model an order names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "logged_versions",
        sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("model", "fingerprint", "run_id", "sha256", "format")),
        sa.Column("logged_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("model", "run_id", name="one_record_per_run"),
    )
    op.create_index("logged_versions_of_fingerprint", "logged_versions", ["model", "fingerprint"])
    op.add_column("champion_orders", sa.Column("fingerprint", sa.Text, nullable=True))
