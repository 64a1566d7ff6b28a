"""Text from users is safe to show: secrets masked, nothing that a terminal obeys, any object as a string (S44, S45)."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoflow.support.masking import looks_secret, mask, mask_text
from geoflow.support.text import (
    aligned,
    columns,
    count,
    cut,
    exact,
    first_lines,
    human_bytes,
    human_duration,
    last_lines,
    plain,
    shorten,
)

ANY_TEXT = st.text(st.characters())  # lone surrogates and control characters too


SECRET = [
    "password", "token", "secret", "sas", "connection_string", "PASSWORD", "passwd", "pwd",
    "db_pwd", "authorization", "sig", "signature", "X-Amz-Signature", "credentials", "passphrase", "cookie",
    "Set-Cookie", "conn_str", "db_pass", "api_key", "sas_token",
    "accessKey", "AZURE_STORAGE_KEY", "APIKey", "apikey", "accountkey", "SASToken", "dbpassword",
    "clientsecret", "ConnectionString", "connection-string", "connectionstring", "access_keys", "api_key2",
    "oauth2Token", "storage.key", "x-api-key", "aws_secret_access_key", "account_key", "secret_key",
]  # fmt: skip
HARMLESS = [
    "key", "keys", "key2", "primary_key", "primaryKey", "join_key", "geo_key", "spectral_signature", "pass", "sas_date",
    "keyword", "monkey", "turkey", "kansas", "key_count", "keyCount", "token_path", "passwordReset", "string",
    "connection", "name", "sassy", "tokenizer", "secretary", "12", "_", "",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET)
def test_S44_a_name_whose_last_words_are_a_secret_looks_secret(name):
    assert looks_secret(name)


@pytest.mark.parametrize("name", HARMLESS)
def test_S44_a_name_that_only_contains_a_secret_does_not_look_secret(name):
    assert not looks_secret(name)


def test_S44_the_list_of_secrets_is_a_setting():
    assert looks_secret("user_PIN", ("pin",))
    assert not looks_secret("spin", ("pin",))
    assert not looks_secret("password", ("pin",))
    assert looks_secret("la_contraseña", ("contraseña",))
    assert looks_secret("thePassPhrase", ("pass_phrase",))
    assert mask({"password": "a", "pin": 1234}, ["pin"]) == {"password": "a", "pin": "***"}
    assert mask_text("pin=1234 password=x", ["pin"]) == "pin=*** password=x"


def test_S44_mask_replaces_secrets_at_any_depth_and_changes_nothing_else():
    given_value = {
        "api_key": "k",
        "layers": [{"name": "roads", "login": {"user": "ann", "password": "p"}}],
        "pair": ({"token": ["a", "b"]}, 2),
        "keyword": "kept",
        "key_count": 3,
        "view": MappingProxyType({"sas": "x", 5: None}),
    }
    before = repr(given_value)

    masked = mask(given_value)

    assert masked == {
        "api_key": "***",
        "layers": [{"name": "roads", "login": {"user": "ann", "password": "***"}}],
        "pair": ({"token": "***"}, 2),
        "keyword": "kept",
        "key_count": 3,
        "view": {"sas": "***", 5: None},
    }
    assert repr(given_value) == before


def test_S44_mask_finds_the_secrets_inside_harmless_values_too():
    masked = mask({"url": "https://store/x.tif?sv=1&sig=abc%3D&se=2", "urls": ["postgres://u:pw@db/x"]})

    assert masked == {"url": "https://store/x.tif?sv=1&sig=***&se=2", "urls": ["postgres://***@db/x"]}


def test_S44_a_secret_that_was_not_given_is_shown_as_not_given():
    assert mask({"password": None, "use_token": False, "pin_token": 0}) == {
        "password": None,
        "use_token": False,
        "pin_token": "***",
    }


def test_S44_a_pair_of_texts_is_a_name_and_its_value():
    headers = [["x-api-key", "abc"], ("password", "a b"), ("name", "roads"), ["token", "a", "b"]]
    assert mask(headers) == [["x-api-key", "***"], ("password", "***"), ("name", "roads"), ["token", "a", "b"]]
    assert (
        mask_text(f"sent {headers}")
        == "sent [['x-api-key', '***'], ('password', '***'), ('name', 'roads'), ['token', 'a', 'b']]"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter2", "password=***"),
        ("login failed (password=hunter2)", "login failed (password=***)"),
        ("token: abc, next", "token: ***, next"),
        ("PWD=x;UID=me", "PWD=***;UID=me"),
        ("AccountName=x;AccountKey=ab/c==;EndpointSuffix=z", "AccountName=x;AccountKey=***;EndpointSuffix=z"),
        ("GET https://h/c/b.tif?sv=1&sig=a%2Fb%3D&sp=r 403", "GET https://h/c/b.tif?sv=1&sig=***&sp=r 403"),
        ("url=https://h/b?sp=r&sig=abc", "url=https://h/b?sp=r&sig=***"),
        ("x%3Fsp%3Dr%26sig%3Dabc", "x%3Fsp%3Dr%26sig%3D***"),
        ("postgresql://ann:p@ss@db:5432/gis", "postgresql://***@db:5432/gis"),
        ("postgresql://token:abc@db/gis", "postgresql://***@db/gis"),
        ("https://ghp_abc@github.com/x", "https://***@github.com/x"),
        ("X-Amz-Signature=0a1b&x=1", "X-Amz-Signature=***&x=1"),
        ("Authorization: Bearer abc.def-g", "Authorization: ***"),
        ("{'Authorization': 'Bearer abc'}", "{'Authorization': '***'}"),
        (r"{'password': 'hun\'ter2', 'user': 'bob'}", "{'password': '***', 'user': 'bob'}"),
        ('{"password":"x","user":"y"}', '{"password":"***","user":"y"}'),
        (r'"{\"password\": \"x\", \"n\": 1}"', r'"{\"password\": \"***\", \"n\": 1}"'),
        ("Params(password=b'hunter2', n=3)", "Params(password='***', n=3)"),
        ("'secrets': {'a': {'b': '}'}}, 'n': 1", "'secrets': ***, 'n': 1"),
        ("credentials=[1, (2)] and so on", "credentials=*** and so on"),
        ("credentials=[1, (2) cut\noff", "credentials=***\noff"),
        ("psql --password hunter2 -h db", "psql --password *** -h db"),
        ("Cookie: a=1; sid=2; path=/x and", "Cookie: *** and"),
        ("password='hunter", "password=***"),
        ("api_key := abc", "api_key := ***"),
        ("private_key='-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----'", "private_key='***'"),
    ],
)
def test_S44_mask_text_masks_what_running_text_says_of_secrets(text, shown):
    assert mask_text(text) == shown
    assert mask_text(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "KeyError: 'name'",
        "missing key: 'bands'",
        "available keys: a, b",
        "signature: greet(params)",
        "password=None, token=None",
        "https://token:8080/x",
        "12:30:00 stage: 3",
        "monkey=1&keyword=2",
        "--token --verbose",
        "token=",
        "cannot open key=tiles/B04.jp2 in sentinel; key 'B04' not found; join key iso3, key = GEOID",
        "Items 0 and 1 of scan have the same key 'a' by key=name: choose one that differs for every item.",
        "  - token: Field required",
        "  - password: Input should be a valid string",
        "x: params=Login has token: SecretStr, but",
        "stat takes token: str | None, which nothing is given for.",
        "Unable to locate credentials: look at ~/.aws",
    ],
)
def test_S44_mask_text_leaves_ordinary_words_as_they_are(text):
    assert mask_text(text) == text


@given(secret=ANY_TEXT)
def test_S44_no_quoted_secret_gets_through_whatever_is_in_it(secret):
    value = "hunter2" + secret
    for text in (repr({"password": value, "n": 1}), json.dumps({"n": 1, "password": value})):
        assert "hunter2" not in mask_text(f"bad parameters {text} for x")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[31mred\x1b[0m \x1b[38;5;9mx\x1b[K", "red x"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "alink"),
        ("\x9b31mred\x9c", "31mred"),
        ("\x1b]0;never ends", "]0;never ends"),
        ("\x1b\x1b[0m[31mx", "[31mx"),
        ("10%\r20%\r\ndone\r", "10%\n20%\ndone\n"),
        ("a\x00\x07\x08\x7f\x85b", "ab"),
        ("user\u202egnp.exe\u2066\u200f\u200b", "usergnp.exe"),
        ("caf\udce9", "caf\\udce9"),
        ("é 漢 👩\u200d🚀", "é 漢 👩\u200d🚀"),
    ],
)
def test_S45_plain_strips_what_a_terminal_would_obey(text, shown):
    assert plain(text) == shown


@given(text=st.text(st.sampled_from("\x1b\x9b\x9d\x07\\[];0mPa\r\n\t\u202e\udc80é")) | ANY_TEXT)
def test_S45_plain_leaves_no_control_character_and_can_be_written(text):
    shown = plain(text)

    shown.encode("utf-8")
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert plain(shown) == shown


class Sub(str):
    def __str__(self):
        raise RuntimeError("never asked")


class GivesSub:
    def __str__(self):
        return Sub("sub")


class Raises:
    def __init__(self, error):
        self.error = error

    def __str__(self):
        raise self.error


class GivesNumber:
    def __str__(self):
        return 5  # noqa: PLE0307 - that is the fault


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (5, "5"),
        (Sub("kept"), "kept"),
        (GivesSub(), "sub"),
        (Raises(ValueError("no")), "<Raises whose __str__ raised ValueError>"),
        (Raises(SystemExit(3)), "<Raises whose __str__ raised SystemExit>"),
        (GivesNumber(), "<GivesNumber whose __str__ raised TypeError>"),
        ("a\x00b\udc80", "a\\x00b\\udc80"),
        (ValueError("é"), "é"),
    ],
)
def test_exact_gives_a_built_in_string_of_any_object(value, text):
    assert exact(value) == text
    assert type(exact(value)) is str


def test_exact_lets_an_interrupt_of_the_user_through():
    with pytest.raises(KeyboardInterrupt):
        exact(Raises(KeyboardInterrupt()))


def test_exact_cuts_a_message_of_ten_megabytes_in_the_middle():
    text = exact("begin" + "x" * 10_000_000 + "end")

    assert len(text) <= 16000
    assert text.startswith("begin")
    assert text.endswith("end")
    assert "characters left out" in text


@given(length=st.integers(0, 3000), limit=st.integers(60, 2000))
def test_cut_says_exactly_how_much_it_left_out(length, limit):
    text = cut("x" * length, limit)

    assert len(text) <= limit or length <= limit
    if length <= limit:
        assert text == "x" * length
    else:
        left_out = int(text.split("[... ")[1].split(" ")[0].replace(",", ""))
        assert text.count("x") + left_out == length


@given(st.integers(1, 60), st.integers(1, 80), st.none() | st.integers(4, 500))
def test_the_first_lines_say_how_many_are_left_also_when_they_are_cut_twice(number, lines, characters):
    text = "\n".join(f"line {n}" for n in range(number))
    for once in (first_lines(text, lines), first_lines(first_lines(text, characters=characters), lines)):
        kept = [line for line in once.splitlines() if not line.startswith("… ")]
        left = re.fullmatch(r"… (\d+) more lines?", once.splitlines()[-1])
        assert len(kept) + (int(left[1]) if left else 0) == number
        assert len(kept) <= lines
    assert first_lines(text, number, number * 10) == text


def test_a_line_too_long_for_the_first_lines_is_cut_and_those_after_it_are_shown():
    text = '{\n"shape": "' + "x" * 5000 + '",\n"tiles": 3\n}'
    assert first_lines(text, characters=100) == '{\n"shape": "' + "x" * 15 + '…\n"tiles": 3\n}'
    assert first_lines("a\nb\nc", 1, rest="; --json prints all.") == "a\n… 2 more lines; --json prints all."


def test_the_last_lines_say_how_many_are_before_as_far_as_that_is_known():
    text = "\n".join(map(str, range(12_345)))
    assert last_lines(text, 2) == "… 12,343 lines before\n12343\n12344"
    assert last_lines("a\nb", 2) == "a\nb"
    assert last_lines(cut(text, 200), 2).startswith("… more than ")


CELL = st.text(st.sampled_from("ab \n日é\u0301"), max_size=40)


@given(
    rows=st.integers(1, 5).flatmap(lambda size: st.lists(st.lists(CELL, min_size=size, max_size=size), max_size=4)),
    width=st.integers(1, 100),
    gives_way=st.none() | st.just(0),
)
def test_S45_a_table_has_a_line_for_each_row_within_its_width(rows, width, gives_way):
    lines = aligned(rows, width, gives_way)
    assert len(lines) == len(rows)
    assert all(columns(line) <= width and "\n" not in line for line in lines)


def test_a_tables_columns_begin_in_line_and_its_widest_gives_way_or_the_one_that_is_named():
    rows = [("id", "日本 " * 6, "x" * 20), ("longer id", "b", "c")]
    assert aligned(rows, 80) == [f"id         {'日本 ' * 5}日本  {'x' * 20}", f"longer id  b{' ' * 28}  c"]
    assert aligned(rows, 50) == [f"id         日本 日本 日本…    {'x' * 17}…", f"longer id  b{' ' * 16}  c"]
    assert aligned(rows, 50, gives_way=2) == [f"id         {'日本 ' * 5}日本  xxxxxxx…", f"longer id  b{' ' * 28}  c"]
    assert aligned([], 80, gives_way=2) == []


def test_shorten_gives_one_plain_line_of_at_most_the_width():
    assert shorten("two\n  lines\t\x1b[1mbold\x1b[0m", 80) == "two lines bold"
    assert shorten("abcdefgh", 5) == "abcd…"
    assert shorten("abc defgh", 5) == "abc…"
    assert shorten("abcde", 5) == "abcde"
    assert shorten("abc", 1) == "…"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 tasks"), (1, "1 task"), (12345, "12,345 tasks")],
)
def test_count_agrees_with_its_noun(number, text):
    assert count(number, "task") == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (999_949, "999.9 kB"),
        (999_960, "1.0 MB"),
        (64e6, "64.0 MB"),
        (3.2e9, "3.2 GB"),
        (1e15, "1,000.0 TB"),
    ],
)
def test_human_bytes_has_no_gap_between_units(number, text):
    assert human_bytes(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.012, "12 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (1.2, "1.2 s"),
        (59.96, "1 min 00 s"),
        (184, "3 min 04 s"),
        (3599.6, "1 h 00 min"),
        (7380, "2 h 03 min"),
        (86399, "1 d 00 h"),
        (349200, "4 d 01 h"),
    ],
)
def test_human_duration_has_no_gap_between_units(seconds, text):
    assert human_duration(seconds) == text


MANY = [
    "password='",
    "password=\"\\'",
    "password={",
    "token=b'x\n",
    "a=",
    "password=,",
    "--password x ",
    "://",
    "cookie: a=b;",
]


@pytest.mark.parametrize("part", [*MANY, "[('token', '", "sig", "_=", 'token: ["', 'password=\\"a'])
def test_S44_masking_looks_at_each_character_a_bounded_number_of_times(part):
    """Whatever is in it: a traceback of a megabyte may hold anything."""

    def steps(times: int) -> float:
        began = time.process_time()
        mask_text(part * times)
        return time.process_time() - began

    assert steps(16_000) < 40 * steps(2_000) + 0.2
