"""The steps (Alembic revisions) that bring a store, new or old, to the shape of `tables`.

A new revision: add `versions/<number>_<what>.py`, follow its predecessor, set `tables.HEAD` to it. A test compares the
migrated database with `tables`, column by column.
"""
