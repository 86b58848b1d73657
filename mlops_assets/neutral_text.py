"""Text of unknown origin, made harmless for the places where it is shown.

Names and values come from other people's data. What each place could take for more than text is replaced here: by
something that looks alike, or by `�`.
"""

from __future__ import annotations

import hashlib
import unicodedata

MAX_CHARACTERS = 120
# Angle quotation marks look alike, are in every font, and mean nothing to HTML, scripts or plotly's own small markup.
_LOOK_ALIKE = str.maketrans({"<": "‹", ">": "›"})
# Control and format characters (bidirectional overrides, zero-width ones), separators of lines, surrogates, unassigned.
_UNSHOWN = {"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"}


def visible(text: str, keep: str = "") -> str:
    """The text with `�` for each character that can't be seen or that controls how text is shown, but for `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("�" if c not in keep and unicodedata.category(c) in _UNSHOWN else c for c in text)


def neutral(text: str, limit: int | None = MAX_CHARACTERS) -> str:
    """The visible text without what a browser could take for markup.

    A text of more than `limit` characters is cut, and ends with a short digest that keeps it apart from others.
    """
    safe = visible(text.translate(_LOOK_ALIKE))
    if limit is None or len(safe) <= limit:
        return safe
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe[:limit]}… ({digest})"
