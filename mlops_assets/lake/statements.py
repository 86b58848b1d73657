"""Whether a text is one statement that only reads, for queries that come from a person, a declaration or features.sql.

DuckDB's own lock (`lake.connection.lock`) says which files a connection opens, but not for what: a file that may be
read may also be written. So a query is parsed first, and refused unless it is one SELECT.

DuckDB calls a statement a SELECT by its outside. `WITH written AS (COPY … TO …) SELECT …` is one, and writes; so does a
function that executes a statement which it is given. Therefore the parsed tree is searched as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

# The kinds of query nodes that read. DuckDB has others inside a SELECT: COPY, INSERT, UPDATE, DELETE and MERGE.
_READING = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_EXECUTING = frozenset({"query", "json_execute_serialized_sql"})
# The table functions that open nothing.
_TABLE_FUNCTIONS = frozenset({"generate_series", "json_each", "json_tree", "range", "unnest"})
_EXPLAIN = re.compile(r"EXPLAIN\s+(ANALYZE\s+|\([^()]*\)\s*)?", re.IGNORECASE)


class StatementRefused(ValueError):
    """A query that is not one SELECT."""


def require_select(con: duckdb.DuckDBPyConnection, sql: str, what: str, *, explain: bool = False) -> str:
    """Return the query without the semicolon that ends it, when it is one statement that only reads.

    FROM, VALUES, WITH, DESCRIBE, SUMMARIZE, SHOW, UNPIVOT, and PIVOT with its values given (`ON column IN (…)`) are
    SELECTs too.

    Args:
        con: any connection; nothing is executed of the query, and no file is opened.
        what: names the query in errors, e.g. "features.sql".
        explain: also allow EXPLAIN and EXPLAIN ANALYZE of a SELECT.

    Raises:
        StatementRefused: no statement, several, or one of another type.
        duckdb.ParserException: the text is not SQL.
    """
    found = con.extract_statements(sql)
    kinds = [statement.type.name for statement in found]
    if len(found) != 1:
        listed = f" ({', '.join(kinds)})" if kinds else ""
        raise StatementRefused(f"{what} has {len(found) or 'no'} statements{listed}; expected one SELECT")
    if kinds == ["EXPLAIN"] and explain:
        text = _without_semicolon(found[0].query)
        explained = _EXPLAIN.match(text)
        if explained is None:
            raise StatementRefused(f"{what}: expected EXPLAIN or EXPLAIN ANALYZE followed by a SELECT, found {text!r}")
        require_select(con, text[explained.end() :], what)
        return text
    if kinds == ["MULTI"]:
        raise StatementRefused(
            f"{what} is executed as several statements, as a PIVOT is whose values DuckDB has to find first; expected "
            "one SELECT: give the values, as in PIVOT rows ON column IN ('a', 'b') USING sum(n)"
        )
    if kinds != ["SELECT"]:
        raise StatementRefused(f"{what} is a statement of type {kinds[0]}; expected one SELECT")
    for part in _objects(_tree(con, found[0].query, what)):
        kind, function = str(part.get("type", "")), str(part.get("function_name", ""))
        if kind.endswith("_NODE") and kind not in _READING:
            kind = kind.removesuffix("_NODE").removesuffix("_QUERY")
            raise StatementRefused(f"{what} has a statement of type {kind} within its SELECT; expected one that reads")
        if function.lower() in _EXECUTING:
            raise StatementRefused(f"{what} calls {function}(), which executes a text; write the query itself")
    return _without_semicolon(sql)


def named_tables(con: duckdb.DuckDBPyConnection, sql: str, what: str) -> set[str]:
    """The tables and views that a query which has passed `require_select` names, as "schema.name" in lower case."""
    explained = _EXPLAIN.match(sql)
    tree = _tree(con, sql[explained.end() :] if explained else sql, what)
    named = [part for part in _objects(tree) if part.get("type") == "BASE_TABLE"]
    return {f"{part.get('schema_name', '')}.{part.get('table_name', '')}".lower() for part in named}


def require_tables(con: duckdb.DuckDBPyConnection, sql: str, what: str, allowed: Collection[str]) -> None:
    """Check that a query which has passed `require_select` reads these tables, and none besides that it names itself.

    For a query that runs where files can be opened: `FROM 'a.csv'` and `FROM read_csv('a.csv')` open one.

    Raises StatementRefused.
    """
    tree = _tree(con, sql, what)
    own = {entry["key"] for part in _objects(tree) for entry in part.get("cte_map", {}).get("map", [])}
    # DuckDB takes a name with one of these for a file, wherever it knows no table of that name.
    readable = {name.lower() for name in [*allowed, *(key for key in own if not re.search(r"[./\\:]", key))]}
    expected = f"expected {', '.join(allowed)}, or what the query itself names by WITH"
    for part in _objects(tree):
        if part.get("type") == "BASE_TABLE":
            names = [part.get(key) for key in ("catalog_name", "schema_name", "table_name")]
            name = ".".join(str(part) for part in names if part)
            if name.lower() not in readable:
                raise StatementRefused(f"{what} reads {name!r}; {expected}")
        if part.get("type") == "TABLE_FUNCTION":
            name = str(part["function"].get("function_name", ""))
            if name.lower() not in _TABLE_FUNCTIONS:
                raise StatementRefused(f"{what} reads {name}(); {expected}")


def _tree(con: duckdb.DuckDBPyConnection, sql: str, what: str) -> Any:
    (text,) = con.cursor().execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()[0]
    tree = json.loads(text)
    if tree["error"]:
        raise StatementRefused(f"{what} can't be checked: {tree['error_message']}; expected one SELECT")
    return tree["statements"]


def _objects(tree: Any) -> Iterator[dict[str, Any]]:
    """All JSON objects of a parsed statement: its query nodes, table references and expressions."""
    pending = [tree]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            yield part
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)


def _without_semicolon(sql: str) -> str:
    """The statement without what follows its last token, and without semicolons at its end."""
    import duckdb

    text = sql.encode()  # the tokens' offsets are in bytes
    end = len(text)
    for offset, kind in reversed(duckdb.tokenize(sql)):
        if kind != duckdb.token_type.comment and text[offset : offset + 1] != b";":
            break
        end = offset
    return text[:end].decode().rstrip()
