from __future__ import annotations

import duckdb
import pytest

from mlops_assets.lake.statements import StatementRefused, require_select, require_tables


@pytest.fixture(scope="module")
def con() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


@pytest.mark.parametrize(
    "query",
    [
        "select 1",
        "from range(3)",
        "values (1)",
        "with a as materialized (select 1) select * from a",
        "with recursive t(n) as (select 1 union all select n + 1 from t where n < 3) from t",
        "select 1 union all select 2",
        "select * from (pivot (select 1 a, 2 b) on a in (1) using sum(b))",
        "unpivot (select 1 a) on a",
        "describe select 1",
        "summarize select 1",
        "show all tables",
        "select {'type': 'COPY_NODE', 'function_name': 'query'} as named_like_what_is_refused",
    ],
)
def test_one_statement_that_reads_passes_unchanged(con: duckdb.DuckDBPyConnection, query: str) -> None:
    assert require_select(con, query, "it") == query


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select 1;", "select 1"),
        ("select ';' /* ; */ ; ; -- the end", "select ';'"),
        ("select 'é' as é; -- ü", "select 'é' as é"),
        ("-- first\nselect 1\n;\n", "-- first\nselect 1"),
    ],
)
def test_a_semicolon_at_the_end_and_what_follows_it_are_left_out(
    con: duckdb.DuckDBPyConnection, query: str, expected: str
) -> None:
    assert require_select(con, query, "it") == expected
    assert con.execute(f"SELECT * FROM ({require_select(con, query, 'it')}\n)").fetchall()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "no statements"),
        ("-- nothing", "no statements"),
        ("select 1; select 2", r"2 statements \(SELECT, SELECT\)"),
        ("select 1; copy (select 1) to 'x'", r"2 statements \(SELECT, COPY\)"),
        ("copy (select 1) to 'x'", "type COPY"),
        ("attach 'x.db'", "type ATTACH"),
        ("install httpfs", "type LOAD"),
        ("load httpfs", "type LOAD"),
        ("pragma version", "type PRAGMA"),
        ("set threads = 1", "type SET"),
        ("call pragma_version()", "type CALL"),
        ("create table x (i int)", "type CREATE"),
        ("export database 'x'", "type EXPORT"),
        ("prepare p as select 1", "type PREPARE"),
        ("pivot (select 1 a, 2 b) on a using sum(b)", "give the values"),
        ("explain select 1", "type EXPLAIN"),
        ("with a as (copy (select 1) to 'x') select * from a", "type COPY within its SELECT"),
        ("select * from (with a as (insert into t values (1)) select 1)", "type INSERT within its SELECT"),
        ("from query('select 1')", r"calls query\(\)"),
        ("from \"JSON_execute_serialized_sql\"('{}')", r"calls json_execute_serialized_sql\(\)"),
        ("select (select count(*) from query('select 1'))", r"calls query\(\)"),
    ],
)
def test_anything_else_is_refused_and_named(con: duckdb.DuckDBPyConnection, query: str, found: str) -> None:
    with pytest.raises(StatementRefused, match=rf"^the query .*{found}"):
        require_select(con, query, "the query")


def test_explain_is_allowed_around_a_select_only(con: duckdb.DuckDBPyConnection) -> None:
    for query in ("explain select 1", "EXPLAIN ANALYZE select 1", "/* a */ explain (format json) select 1"):
        assert con.execute(require_select(con, query, "it", explain=True)).fetchall()
    for query in (
        "explain analyze copy (select 1) to 'x'",
        "explain (analyze) copy (select 1) to 'x'",
        "explain analyze with a as (copy (select 1) to 'x') select * from a",
    ):
        with pytest.raises(StatementRefused, match="COPY"):
            require_select(con, query, "it", explain=True)
    # A comment hides what follows: refused one way or the other.
    with pytest.raises((StatementRefused, duckdb.ParserException)):
        require_select(con, "explain /* b */ analyze copy (select 1) to 'x'", "it", explain=True)


def test_text_that_is_no_sql_is_named_by_duckdb(con: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(duckdb.ParserException, match="syntax error"):
        require_select(con, "selec 1", "it")


def test_a_query_reads_the_tables_that_it_may_and_its_own(con: duckdb.DuckDBPyConnection) -> None:
    for query in (
        "from source",
        "with a as (from Source), b as (from a) select * from b, unnest([1])",
        "select * from source, range(3), (values (1)) v",
        "from source unpivot (n for name in (a, b))",
    ):
        require_tables(con, query, "it", ["source"])
    for query, found in (
        ("from 'a.csv'", "'a.csv'"),
        ("from source join other using (a)", "'other'"),
        ("from main.source", "'main.source'"),
        ("from source, read_csv('a.csv')", r"read_csv\(\)"),
        ("select (select count(*) from read_text('a')) from source", r"read_text\(\)"),
        ("from glob('*'), source", r"glob\(\)"),
        # The name of the inner query is not seen outside of it, where it is a file.
        ("""select * from source, 'a.csv', (with "a.csv" as (select 1) from "a.csv")""", "'a.csv'"),
    ):
        with pytest.raises(StatementRefused, match=f"it reads {found}; expected source, or what the query itself"):
            require_tables(con, query, "it", ["source"])
