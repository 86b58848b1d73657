"""Removes secrets from text before it leaves the process: terminal, lake, event log, incident store, alerts, logs.

`redact` knows three kinds of secrets: what a URL carries beside its host and path (user, password, query), what stands
behind a telling name (`Authorization: …`, `password=…`, `X-Amz-Signature=…`), and the values of environment variables
that hold credentials. Text without any comes back unchanged, and redacting twice changes nothing.

Standard library only, and nothing of this project: every module may import it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "…"
# Shorter values, and plain words, stand in ordinary text: hiding a password `features` would make it unreadable.
SHORTEST_SECRET = 6
_WORD = re.compile(r"[a-z_]{1,11}")

# Schemes whose host and path are an address. In any other URL, such as Apprise's slack://TOKEN/TOKEN, they may be the
# secret itself.
_ADDRESSES = frozenset(
    (
        *("http", "https", "ws", "wss", "ftp", "ftps", "sftp", "ssh", "git", "file", "local", "memory", "unix", "tcp"),
        *("s3", "s3a", "s3n", "gs", "gcs", "az", "abfs", "abfss", "wasb", "wasbs", "adl", "oss", "hdfs", "webhdfs"),
        *("viewfs", "dbfs", "hf", "github", "grpc", "zip", "tar", "libarchive", "dir", "reference", "root"),
        *("simplecache", "filecache", "blockcache", "cached"),
        *("sqlite", "postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "duckdb", "snowflake"),
        *("redis", "rediss", "mongodb", "amqp", "models", "runs", "mlflow-artifacts"),
        *("json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"),
    )
)
# Web hooks over https whose path is the secret.
_HOOKS = re.compile(r"(?i)^(hooks\.slack\.com|discord(app)?\.com/api/webhooks|api\.telegram\.org|[^/]*webhook\.office)")

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>(?:(?!::[A-Za-z][A-Za-z0-9+.-]*://)[^\s\"'`<>\\])*)")
# SQLAlchemy lets a password hold any character but @, so a slash does not end it; a port does not begin it.
_USER = re.compile(r"(?!\[?[^/@]*?\]?:\d{1,5}(?:[/?#]|$))(?:[^/@:?#]*:[^@]*|[^/@?#]*)@")
_PARAMETERS = (
    r"x-amz-[\w-]+|x-goog-[\w-]+|sig|signature|sas|token|[\w-]+[_-]token|auth|api[_-]?key|[\w-]+[_-]key(?:[_-]id)?|"
    r"awsaccesskeyid|secret|[\w-]+[_-]secret|password|passwd|pwd|passphrase|credentials?"
)
_PARAMETER = re.compile(rf"(?i)(?P<name>[?&#](?:{_PARAMETERS}|key)=)(?P<value>[^&\s\"'<>\\]+)")
# Outside of a URL some of these names are ordinary words (`run_key=`, `token=` of a lease).
_NAMED = re.compile(
    r"(?i)(?<![\w-])(?P<name>[\"']?(?:x-amz-[\w-]+|x-goog-[\w-]+|password|passwd|passphrase|secret|client[_-]secret|"
    r"(?:aws_)?secret[_-]access[_-]key|access[_-]token|refresh[_-]token|session[_-]token|api[_-]?key|x-api-key|"
    r"account[_-]key|sharedaccesskey|accountkey|sig|signature)[\"']?\s*[=:]\s*[\"']?)(?P<value>[^\s\"',;&)}\\]+)"
)
_HEADER = re.compile(
    r"(?i)(?P<name>\b(?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:[A-Za-z]+\s+)?|\b(?:set-)?cookie[\"']?:\s*[\"']?|"
    r"\bbearer\s+(?=\S*[\d._=-]))(?P<value>[^\s\"',\\]+)"
)
# requests and urllib3 give the path and the query without the host: "Max retries exceeded with url: /file?sig=…".
_PATH_QUERY = re.compile(r"(?i)(?P<name>\burl:\s*/[^\s?\"'\\]*\?)(?P<value>[^\s\"'\\)]+)")
_PICTURE = re.compile(r"(data:image/[\w.+-]+;base64,[A-Za-z0-9+/=]+)")
_CREDENTIAL_NAME = re.compile(
    r"(?i)PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_KEY|ACCOUNT_KEY|PRIVATE_KEY|CREDENTIAL|"
    r"CONNECTION_STRING|SIGNATURE|(^|_)SAS$"
)
_NO_CREDENTIAL = re.compile(r"(?i)_(FILE|PATH|DIR|FOLDER|URI|URL|ENDPOINT|NAME|TYPE|PROFILE|SECONDS)$")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without its secrets; each is replaced by `…`.

    Of a URL the scheme, host and path stay (`https://…@host/path?…`), of one that may hold its secret there only the
    scheme (`slack://…`).

    Args:
        secrets: further values to hide, beside those of the environment.
    """
    return _redact(text, (*secrets, *_of_environment()))


def redacted(value: Any) -> Any:
    """The value with every string in it redacted, also those in mappings, lists and tuples."""
    return _walk(value, tuple(_of_environment()))


def hide_address(url: str) -> str:
    """The URL of an alert's endpoint as it may be shown: scheme and host, as even the path of a web hook is a secret.

    Of `file://` the whole path stays.
    """
    scheme, _, rest = redact(url).partition("://")
    if scheme.lower() == "file" or rest == HIDDEN:
        return f"{scheme}://{rest}".removesuffix(f"?{HIDDEN}")
    host, slash, path = rest.removesuffix(f"?{HIDDEN}").partition("/")
    return f"{scheme}://{host}{slash}{HIDDEN if path.strip('/') else ''}"


def secrets_of(url: str) -> list[str]:
    """What of an alert's endpoint must not be shown on its own either: user, password, long parts of path and query."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() == "file":
        return []
    host = hide_address(url).partition("://")[2].removeprefix(f"{HIDDEN}@").partition("/")[0]
    parts = [part for part in re.split(r"[/:@?&=,]", rest) if part and part not in host]
    return _long({*parts, *map(unquote, parts)})


@contextmanager
def errors_redacted() -> Iterator[None]:
    """Raises an error that leaves the block without the secrets in its text, or in the text of what caused it.

    For the border to a system that stores errors. An error without secrets passes as it is; another one keeps its
    name, its traceback and its redacted text, but not its type.
    """
    try:
        yield
    except Exception as error:
        clean = _without_secrets(error)
        if clean is error:
            raise
        raise clean.with_traceback(error.__traceback__) from clean.__cause__


def _redact(text: str, secrets: Iterable[str]) -> str:
    if ";base64," in text:
        # Pictures within a text: nothing can be found in them, and looking takes long.
        parts = _PICTURE.split(text)
        return "".join(part if _PICTURE.fullmatch(part) else _redact_words(part, secrets) for part in parts)
    return _redact_words(text, secrets)


def _redact_words(text: str, secrets: Iterable[str]) -> str:
    if "://" in text:
        text = _URL.sub(_hide_in_url, text)
    if "=" in text or ":" in text:
        text = _PATH_QUERY.sub(rf"\g<name>{HIDDEN}", text)
        text = _PARAMETER.sub(rf"\g<name>{HIDDEN}", text)
        text = _HEADER.sub(rf"\g<name>{HIDDEN}", text)
        text = _NAMED.sub(rf"\g<name>{HIDDEN}", text)
    elif re.search(r"(?i)bearer", text):
        text = _HEADER.sub(rf"\g<name>{HIDDEN}", text)
    for secret in secrets:
        if secret in text:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return text


def _walk(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return _redact(value, secrets)
    if isinstance(value, dict):
        return {name: _walk(item, secrets) for name, item in value.items()}
    if isinstance(value, list):
        return [_walk(item, secrets) for item in value]
    if type(value) is tuple:
        return tuple(_walk(item, secrets) for item in value)
    return value


def _hide_in_url(found: re.Match[str]) -> str:
    scheme, rest = found["scheme"], found["rest"]
    stripped = rest.rstrip(").,;:!]}")
    rest, after = (rest, "") if rest.endswith("}") and "{" in rest else (stripped, rest[len(stripped) :])
    if not rest:
        return found[0]
    if scheme.lower().partition("+")[0] not in _ADDRESSES:
        return f"{scheme}://{HIDDEN}{after}"
    user = _USER.match(rest)
    if user is not None:
        rest = rest[user.end() :]
    rest, hash_sign, fragment = rest.partition("#")
    path, question, _ = rest.partition("?")
    if _HOOKS.match(path):
        path = f"{path.partition('/')[0]}/{HIDDEN}"
    query = f"?{HIDDEN}" if question else ""
    return f"{scheme}://{f'{HIDDEN}@' if user else ''}{path}{query}{hash_sign}{fragment}{after}"


def _of_environment() -> list[str]:
    """The credentials among the environment variables: the values of those that are named so, passwords in URLs."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if "://" in value:
            for url in _URL.finditer(value):
                user = _USER.match(url["rest"])
                password = user[0].rstrip("@").partition(":")[2] if user is not None else ""
                found |= {password, unquote(password), quote(unquote(password), safe="")}
        elif _CREDENTIAL_NAME.search(name) and not _NO_CREDENTIAL.search(name):
            found |= {value, quote(value, safe="")}
    return _long(found)


def _long(values: Iterable[str]) -> list[str]:
    """Those that can be told from ordinary text, longest first, so that a part of another leaves nothing of it."""
    kept = {value for value in values if len(value) >= SHORTEST_SECRET and not _WORD.fullmatch(value)}
    return sorted(kept, key=lambda value: (-len(value), value))


def _without_secrets(error: BaseException) -> BaseException:
    """The error itself when its chain holds no secret, else a copy of the chain that says the same without them."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    clean_cause = None if cause is None else _without_secrets(cause)
    text = str(error)
    clean_text = redact(text)
    if clean_text == text and clean_cause is cause:
        return error
    kind = type(error)
    copy = type(kind.__name__, (Exception,), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})
    clean: BaseException = copy(clean_text)
    for note in getattr(error, "__notes__", ()):
        clean.add_note(redact(note))
    clean.__cause__ = clean_cause
    return clean.with_traceback(error.__traceback__)
