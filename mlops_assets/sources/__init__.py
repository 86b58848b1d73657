"""Reading a model's records: find the publisher's file, cast it to the declared schema, say what is odd.

Here: one period's rows out of a Parquet or CSV file, and the problems that can be told from the file alone.
Judging values against a feature's rules is `lake.validation`.

`declaration` is the YAML's `source`, `location` finds or fetches the file, `opening` makes a scan of it, `casting`
brings its columns to the declared types, `inspection` counts what is odd, `digests` names contents, `reading` is the
whole.
"""
