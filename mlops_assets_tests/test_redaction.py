"""No secret leaves the process: what `redact` hides, and what it leaves as it is."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.redaction import errors_redacted, hide_address, redact, redacted, secrets_of

SECRET = "s3cr3tV4lue"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://ann:{SECRET}@host.org/a/b.csv", "https://…@host.org/a/b.csv"),
        (f"https://{SECRET}@host.org/a", "https://…@host.org/a"),
        (f"s3://KEY:{SECRET}@bucket/a@b.parquet", "s3://…@bucket/a@b.parquet"),
        (f"https://h/a.csv?X-Amz-Signature={SECRET}&X-Amz-Date=1", "https://h/a.csv?…"),
        (f"(see https://h/{{period}}.csv?sig={SECRET}).", "(see https://h/{period}.csv?…)."),
        (f"postgresql+psycopg://u:a/b?{SECRET}@db:5432/mlops", "postgresql+psycopg://…@db:5432/mlops"),
        (f"slack://{SECRET}/B123/xyz/#ops", "slack://…"),
        (f"https://hooks.slack.com/services/T1/{SECRET}", "https://hooks.slack.com/…"),
        (f"mailto://ann:{SECRET}@mail.org?to=a@b.org", "mailto://…@mail.org?…"),
        (f"simplecache::s3://a:{SECRET}@bucket/x", "simplecache::s3://…@bucket/x"),
        (f"zip://a.csv::https://a:{SECRET}@h/x.zip", "zip://a.csv::https://…@h/x.zip"),
        (f"Max retries exceeded with url: /a.csv?sv=1&sig={SECRET} (Caused by X)", None),
        (f"/a.csv?se=2024&sig={SECRET}&sp=r", "/a.csv?se=2024&sig=…&sp=r"),
        (f"{{'Authorization': 'Basic {SECRET}='}}", "{'Authorization': 'Basic …'}"),
        (f"authorization: Bearer {SECRET}", "authorization: Bearer …"),
        (f"host=db user=u password={SECRET} dbname=x", "host=db user=u password=… dbname=x"),
        (f'{{"aws_secret_access_key": "{SECRET}"}}', '{"aws_secret_access_key": "…"}'),
        (f"AccountName=a;AccountKey={SECRET}==;", "AccountName=a;AccountKey=…;"),
        (f"https://h/cb#access_token={SECRET}", "https://h/cb#access_token=…"),
    ],
)
def test_a_secret_in_a_text_is_hidden_and_the_rest_stays(text: str, shown: str | None) -> None:
    said = redact(text)
    assert SECRET not in said
    assert shown is None or said == shown
    assert redact(said) == said


@pytest.mark.parametrize(
    "text",
    [
        "column fee: found DOUBLE (3 rows), expected BIGINT. Correct the source.",
        "http://127.0.0.1:5000/#/experiments/1?workflowType=machine_learning",
        "http://127.0.0.1:8001/rides/2021-01.html",
        "s3://bucket/lake/rides/features/period=2021-01/data.parquet",
        "sqlite:////srv/home/store.db",
        "https://host:8443/a@b/c.csv",
        "run_key=2021-01:3 key=value token of the lease: 4",
        "password authentication failed for user ann",
        "basic knowledge bears no token",
        "quarantined: volume: The source has no rows for 2021-01; at least one is expected.",
    ],
)
def test_text_without_a_secret_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_credentials_of_the_environment_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUt/nFEMI")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "tr4cking")
    monkeypatch.setenv("MLOPS_STORE_URL", "postgresql://u:p%40ssw0rd@db/x")
    monkeypatch.setenv("SECRETS_DIR", "/run/secrets")
    said = redact("wJalrXUt/nFEMI, tr4cking, p%40ssw0rd, p@ssw0rd, /run/secrets, tr4ckings")
    assert said == "…, …, …, …, /run/secrets, tr4ckings"


def test_strings_are_redacted_inside_of_mappings_and_lists() -> None:
    found = redacted({"origin": f"https://a:{SECRET}@h/x", "rows": 3, "list": [f"sig={SECRET}", None, (1.5,)]})
    assert found == {"origin": "https://…@h/x", "rows": 3, "list": ["sig=…", None, (1.5,)]}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"json://user:{SECRET}@127.0.0.1:8080/hooks/{SECRET}", "json://…@127.0.0.1:8080/…"),
        ("json://127.0.0.1:8080/", "json://127.0.0.1:8080/"),
        (f"tgram://{SECRET}/123456", "tgram://…"),
        ("file:///srv/alerts.jsonl?x=1", "file:///srv/alerts.jsonl"),
    ],
)
def test_the_address_of_an_alert_endpoint_is_its_scheme_and_host(url: str, shown: str) -> None:
    assert hide_address(url) == shown
    assert (SECRET in secrets_of(url)) == (SECRET in url)
    assert SECRET not in redact(f"POST /hooks/{SECRET} failed", secrets_of(url)) or SECRET not in url


def test_an_error_is_raised_again_without_the_secrets_of_its_chain() -> None:
    def fail() -> None:
        try:
            raise KeyError(f"https://a:{SECRET}@h/x")
        except KeyError as error:
            raise ConnectionError(f"could not fetch https://h/x?sig={SECRET}") from error

    with pytest.raises(Exception, match="could not fetch https://h/x") as raised, errors_redacted():
        fail()
    told = "".join(traceback.format_exception(raised.value))
    assert SECRET not in told
    assert "ConnectionError: could not fetch https://h/x?…" in told
    assert "in fail" in told
    with pytest.raises(ConnectionError) as same, errors_redacted():
        raise ConnectionError("refused")
    assert type(same.value) is ConnectionError


@given(st.text(), st.from_regex(r"[A-Za-z0-9%!$*~.-]{8,20}", fullmatch=True))
def test_redacting_is_idempotent_and_finds_the_password_of_any_url(around: str, password: str) -> None:
    text = f"{around} https://user:{password}@host/path?sig={password} {around}"
    said = redact(text)
    assert f"user:{password}@" not in said
    assert f"sig={password}" not in said.replace(around, "")
    assert redact(said) == said
