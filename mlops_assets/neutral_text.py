"""Text of unknown origin, made harmless for the places where it is shown.

Names and values come from other people's data. What each place could take for more than text is replaced here: the
terminal and plots by `visible`, HTML by `neutral`, Markdown by `neutral_markdown`.
"""

from __future__ import annotations

import hashlib
import unicodedata

MAX_CHARACTERS = 120
# Angle quotation marks look alike, are in every font, and mean nothing to HTML, scripts or plotly's own small markup.
_LOOK_ALIKE = str.maketrans({"<": "‹", ">": "›"})
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MARKDOWN = frozenset(r"\`*_{}[]<>#|~!&")


def visible(text: str, keep: str = "") -> str:
    """The text with every character written out that can't be seen or that controls how text is shown.

    Control characters, escape sequences, bidirectional overrides, zero-width characters and separators of lines become
    `\\x1b`, `\\u202e` and so on; those in `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(_written_out(c) if c not in keep else c for c in text)


def _written_out(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    if character in _SHORT:
        return _SHORT[character]
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def neutral(text: str, limit: int | None = MAX_CHARACTERS) -> str:
    """The visible text without what a browser could take for markup.

    A text of more than `limit` characters is cut, and ends with a short digest that keeps it apart from others.
    """
    safe = visible(text.translate(_LOOK_ALIKE))
    if limit is None or len(safe) <= limit:
        return safe
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe[:limit]}… ({digest})"


def neutral_markdown(text: str) -> str:
    """The visible text on one line, without meaning in Markdown or in HTML within it."""
    return "".join(f"\\{c}" if c in _MARKDOWN else c for c in visible(" ".join(text.split())))
