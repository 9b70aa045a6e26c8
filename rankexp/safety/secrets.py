"""Passwords in addresses of servers and databases: recognised in one place, so that none is kept or shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, unquote

_SECRET = r"pass(?!file)|pwd|token|secret|api_?-?key|access_?-?key|credential|signature|\bsig\b|\bauth\b|\bkey\b"
_NAMED = re.compile(_SECRET, re.IGNORECASE)
"""Names in a query whose values are nobody else's business; ``passfile`` and ``sslkey`` name files."""
_SCHEME = re.compile(r"\s*(?:(?P<scheme>[A-Za-z][\w+.-]*):)?(?P<slashes>/{0,2})(?P<rest>.*)", re.DOTALL)
_SHOWN_USER = re.compile(r"((?:\b[A-Za-z][\w+.-]*:|(?<![:/]))//(?!/))[^\s'\"<>]*@")
_SHOWN_VALUE = re.compile(rf"([?&;#][^=&;#\s]*(?:{_SECRET})[^=&;#\s]*=)[^&;#\s'\"]*", re.IGNORECASE)


def holds_secret(url: str) -> bool:
    """Whether a URL holds a password or a token, before its host or in its query, plain or percent-encoded.

    >>> holds_secret("http://me:1234@host"), holds_secret("postgresql://host/db?password=x")
    (True, True)
    >>> holds_secret("postgresql://me@host/db"), holds_secret("sqlite:////home/a:b@c/mlflow.db")
    (False, False)
    """
    return any(True for _ in _secrets(url))


def without_secrets(text: str, *urls: str) -> str:
    """Take passwords and tokens out of a text that may name a URL.

    Args:
        text: What somebody will read.
        urls: Addresses that it may be about, parts of which it may quote by themselves.

    >>> without_secrets("cannot reach http://me:1234@host/a?token=5")
    'cannot reach http://***@host/a?token=***'
    """
    text = _SHOWN_VALUE.sub(r"\1***", _SHOWN_USER.sub(r"\1***@", text))
    secrets = {secret for url in urls for secret in _secrets(url)}
    parts = {form for secret in secrets for form in (secret, unquote(secret), quote(secret, safe="")) if form}
    for part in sorted(parts, key=len, reverse=True):
        word = re.escape(part) if len(part) > 3 else rf"(?<![A-Za-z0-9]){re.escape(part)}(?![A-Za-z0-9])"
        text = re.sub(word, "***", text)
    return text


def _secrets(url: str) -> Iterator[str]:
    """Iterate over the passwords and tokens of a URL, as they are written there."""
    text = url if "://" in url else unquote(url)
    yield from _before_host(text)
    for separator in "?#":
        _, _, query = text.partition(separator)
        for name, value in parse_qsl(query.replace(";", "&"), separator="&"):
            if _NAMED.search(name):
                yield value
            yield from _settings(value)


def _before_host(text: str) -> Iterator[str]:
    found = _SCHEME.fullmatch(text)
    if found is None or text.lstrip()[:1] in {"/", ".", "~"} or found["rest"].startswith("/"):
        return  # a file
    user, at, _ = found["rest"].rpartition("@")
    name, colon, password = user.partition(":")
    if at and found["scheme"] and not found["slashes"]:
        yield user  # no scheme at all, but a name
    elif at and colon and password:
        yield password
    elif at and (found["scheme"] or "").lower() in {"http", "https"} and not re.search(r"[/?#]", user):
        yield name  # a token by itself


def _settings(value: str) -> Iterator[str]:
    """Iterate over the passwords in a value that is itself a list of settings, as ODBC has it."""
    for word in value.split(";"):
        name, equals, setting = word.partition("=")
        if equals and _NAMED.search(name):
            yield setting
