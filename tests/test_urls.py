"""Passwords and tokens in URLs, whatever way they are written."""

from __future__ import annotations

import pytest

from rankexp.safety.secrets import holds_secret, without_secrets

WITH = [
    "http://me:s3cret@host:5000",
    "HTTPS://s3cret@host",
    " http://me:s3cret@host",
    "http:/me:s3cret@host",
    "me:s3cret@host",
    "http://me:s3cret/more@host/path",
    "http://me:s3cret?more@host",
    "mysql+pymysql://me:s3cret#more@host/db",
    "http://me:s3%63ret%40@host",
    "http%3A%2F%2Fme%3As3cret%40host",
    "http://host/?token=s3cret",
    "http://host/?pass%77ord=s3cret",
    "http://host/?a=1;api_key=s3cret",
    "http://host/#access_token=s3cret",
    "postgresql://host/db?password=s3cret",
    "postgresql:///db?sslpassword=s3cret",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Ds3cret",
    "databricks://me:s3cret@host",
    "sqlite+pysqlcipher://:s3cret@/file.db",
]
WITHOUT = [
    "http://localhost:5000", "http://host/team@home", "http://host/?experiment=1&monkey=2", "sqlite:///mlflow.db",
    "sqlite:////home/a:b@c/mlflow.db", "./a:b@c/mlruns", "~/a:b@c", "mlruns", "databricks", "databricks://profile",
    "file:///home/a@b/mlruns", "postgresql://me@host/db", "postgresql://host/db?sslkey=/key.pem&passfile=/home/me/.pgpass",
]  # fmt: skip


@pytest.mark.parametrize("url", WITH)
def test_a_secret_is_seen_and_never_shown(url: str) -> None:
    assert holds_secret(url)
    for text in (f"cannot reach {url} now", f"no such name: {url!r}"):
        assert "s3cret" not in without_secrets(text, url)
        assert "s3%63ret" not in without_secrets(text, url)


@pytest.mark.parametrize("url", WITHOUT)
def test_what_holds_no_secret_is_left_alone(url: str) -> None:
    assert not holds_secret(url)


@pytest.mark.parametrize("url", WITH[:1] + WITH[9:11])
def test_a_part_of_a_url_that_an_error_quotes_is_not_shown(url: str) -> None:
    assert without_secrets("login 's3cret' was refused by host", url) == "login '***' was refused by host"
