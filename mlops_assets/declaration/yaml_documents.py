"""YAML read strictly, every value with its line: what PyYAML accepts in silence and means otherwise is an error.

Refused are duplicate keys, keys that are not text (an unquoted `no` is read as false), documents that nest or repeat
themselves beyond reason, tags other than YAML's own, and files that are not UTF-8. Values are what Dagster's own reader
makes of them: dates stay text. Several documents in a file are Dagster's, and stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Place = tuple[str | int, ...]

LARGEST_FILE = 1_000_000
DEEPEST = 40
# Values of a document after its aliases have been replaced by what they stand for.
MOST_VALUES = 50_000

_BOOL, _MERGE, _TIMESTAMP, _MAP, _SEQ = (
    f"tag:yaml.org,2002:{name}" for name in ("bool", "merge", "timestamp", "map", "seq")
)
_SCALARS = {_BOOL, *(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "null"))}
# How what is read as these looks to a person.
_LOOK = {
    _BOOL: r"(?i)true|false",
    "tag:yaml.org,2002:int": r"[-+]?(0|[1-9][0-9]*)",
    "tag:yaml.org,2002:float": r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?|(?i:[-+]?\.(nan|inf))",
}
_NAMES = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:int"}


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a file: what was found, what was expected, and what to do.

    `line` counts from 1; None when it is about the file as a whole.
    """

    path: Path
    line: int | None
    text: str

    def __str__(self) -> str:
        shown = self.path.relative_to(Path.cwd()) if self.path.is_relative_to(Path.cwd()) else self.path
        return f"{shown}:{self.line}: {self.text}" if self.line else f"{shown}: {self.text}"


def sentence(found: str, expected: str, fix: str) -> str:
    """The text of a problem."""
    return f"found {found}, expected {expected}; {fix}"


class DeclarationError(ValueError):
    """A declaration that can't be used; `problems` has one entry for each thing that is wrong."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Document:
    """One YAML document.

    Attributes
    ----------
    value
        The plain Python value: mappings, lists, text, numbers, booleans and None.
    lines
        The line of every key and list item, by its place: `("attributes", "columns", "fare")`.
    reread
        By place what is written without quotes and read as something that does not look like it: the booleans of
        YAML 1.1 (`yes`, `no`, `on`, `off`), numbers like `010` (8), `1_000` or `12:30` (750).
    """

    path: Path
    value: Any
    line: int
    lines: dict[Place, int] = field(default_factory=dict)
    reread: dict[Place, str] = field(default_factory=dict)

    def line_of(self, place: Place) -> int:
        """The line of a place, or of the nearest thing around it that is written."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.lines:
                return self.lines[place[:length]]
        return self.line

    def problem(self, place: Place, text: str) -> Problem:
        """A problem of this document, at a place."""
        return Problem(self.path, self.line_of(place), text)


def read_documents(path: Path) -> list[Document]:
    """The documents of a file, in order.

    Raises
    ------
    DeclarationError
        The file can't be read, is empty, is no YAML, or says something that YAML takes for something else.
    """
    text = _text(path)
    try:
        _check_depth(path, text)
        nodes = list(yaml.compose_all(text, Loader=_Loader))
        documents = [_document(path, node) for node in nodes if node is not None]
    except yaml.MarkedYAMLError as error:
        raise DeclarationError([_no_yaml(path, text, error)]) from error
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        said = str(error).splitlines()[0]
        raise _refused(path, line, said, "YAML", "remove what no editor shows there") from error
    if not documents:
        raise _refused(path, 1, "an empty file", "a YAML document", "write it, or remove the file and its folder")
    return documents


_RESOLVERS = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader without dates, as Dagster reads them; the one in C where it is there."""

    yaml_implicit_resolvers = _RESOLVERS


class _Constructor(yaml.SafeLoader):
    """Makes values of nodes."""

    yaml_implicit_resolvers = _RESOLVERS


def _line(written: yaml.Node | yaml.Event) -> int:
    return written.start_mark.line + 1 if written.start_mark is not None else 1


def _refused(path: Path, line: int | None, found: str, expected: str, fix: str) -> DeclarationError:
    return DeclarationError([Problem(path, line, sentence(found, expected, fix))])


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise _refused(path, None, f"{size:,} bytes", f"at most {LARGEST_FILE:,}", "remove what is no declaration")
        content = path.read_bytes()
    except OSError as error:
        raise _refused(
            path, None, f"a file that can't be read ({error.strerror})", "a YAML file", "make it readable"
        ) from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _refused(path, 1, "UTF-16", "UTF-8", "save the file as UTF-8")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise _refused(
            path, line, f"the byte 0x{byte:02x}, which is not UTF-8", "UTF-8", "save the file as UTF-8"
        ) from error


def _check_depth(path: Path, text: str) -> None:
    """Refuse what nests too deeply, before anything that recurses looks at it."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                found = f"lists or mappings in each other more than {DEEPEST} levels deep"
                fix = "flatten it; was a bracket left open?"
                raise _refused(path, _line(event), found, "a handful of levels", fix)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _no_yaml(path: Path, text: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 1
    said = ", ".join(part for part in (error.context, error.problem) if part)
    written = text.splitlines()[line - 1].strip()[:60] if line <= len(text.splitlines()) else "the end of the file"
    fix = "correct the line, or the one before; text with ': ', ' #' or a first character like @ or % needs quotes"
    if "\t" in text.splitlines()[min(line, len(text.splitlines())) - 1]:
        fix = "indent with blanks: YAML takes no tab"
    return Problem(path, line, sentence(f"{written!r} ({said})", "YAML", fix))


# -- values with their lines ----------------------------------------------------------------------------------


def _document(path: Path, root: yaml.Node) -> Document:
    line = _line(root)
    _check_size(path, root, {}, set())
    document = Document(path, None, line)
    problems: list[Problem] = []
    value = _Values(document, problems).value(root, ())
    if problems:
        raise DeclarationError(problems)
    return Document(path, value, line, document.lines, document.reread)


def _check_size(path: Path, node: yaml.Node, sizes: dict[int, int], around: set[int]) -> int:
    """How many values a node has when its aliases are replaced by what they stand for."""
    if id(node) in sizes:
        return sizes[id(node)]
    line = _line(node)
    if id(node) in around:
        raise _refused(path, line, "an alias of what it is in itself", "no such circle", "write the value out")
    around.add(id(node))
    size = 1
    for child in _children(node):
        size += _check_size(path, child, sizes, around)
        if size > MOST_VALUES:
            found = "aliases that stand for one another, more than " + f"{MOST_VALUES:,} values"
            raise _refused(path, line, found, "a declaration", "write the values out")
    around.discard(id(node))
    sizes[id(node)] = size
    return size


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


class _Values:
    """Makes the Python values of nodes, noting lines, the booleans of YAML 1.1, and what is wrong."""

    def __init__(self, document: Document, problems: list[Problem]) -> None:
        self._document = document
        self._problems = problems
        self._constructor = _Constructor("")

    def value(self, node: yaml.Node, place: Place) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ:
            return [self._at(item, (*place, index), item) for index, item in enumerate(node.value)]
        if node.tag not in _SCALARS or not isinstance(node, yaml.ScalarNode):
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._wrong(node, f"the tag {tag}", "plain text, numbers, booleans, lists and mappings", "remove the tag")
            return None
        value = self._scalar(node)
        if not node.style and node.tag in _LOOK and not re.fullmatch(_LOOK[node.tag], node.value):
            self._document.reread[place] = node.value
        return value

    def _at(self, node: yaml.Node, place: Place, written: yaml.Node) -> Any:
        self._document.lines[place] = _line(written)
        return self.value(node, place)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str | int, Any]:
        own = [(key, value) for key, value in node.value if key.tag != _MERGE]
        names = [self._key(key) for key, _ in own]
        first: dict[str | int, int] = {}
        for name, (key, _) in zip(names, own, strict=True):
            if name is not None and name in first:
                found = f"the key {name!r} a second time (first in line {first[name]})"
                self._wrong(key, found, "each key once", "YAML keeps the last one in silence: remove one of the two")
            elif name is not None:
                first[name] = _line(key)
        if len(own) < len(node.value):
            # A merge (<<: *other) gives the keys that the mapping does not have itself.
            self._constructor.flatten_mapping(node)
            own, names = node.value, [self._key(key) for key, _ in node.value]
        return {
            name: self._at(value, (*place, name), key)
            for name, (key, value) in zip(names, own, strict=True)
            if name is not None
        }

    def _key(self, key: yaml.Node) -> str | int | None:
        """The name that a key stands for; None, noting why, when it is none."""
        if not isinstance(key, yaml.ScalarNode):
            self._wrong(key, "a key of several values", "text as a key", "write one name")
            return None
        if key.tag in _NAMES:
            return self._scalar(key)
        kind = key.tag.rpartition(":")[2]
        self._wrong(key, f"the key {key.value!r}, read as {kind}", "text as a key", f'put it in quotes: "{key.value}"')
        return None

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return self._constructor.construct_object(node, deep=True)
        except (ValueError, OverflowError, IndexError) as error:
            self._wrong(node, f"{str(node.value)[:40]!r} ({str(error)[:80]})", "a value", "write another, or in quotes")
            return None

    def _wrong(self, node: yaml.Node, found: str, expected: str, fix: str) -> None:
        text = sentence(found, expected, fix)
        self._problems.append(Problem(self._document.path, _line(node), text))
