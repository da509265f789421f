"""The API as it is shipped, gunicorn with two workers on the real node: many at once, slow ones, odd ones."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from asking import WANTED
from live import Live, at_once, workers_of

from ledger.devnet import Devnet
from web.worker import REQUEST_SECONDS

pytestmark = pytest.mark.devnet


@pytest.fixture(scope="module")
def running(devnet: Devnet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, int]]:
    """One service for all tests that leave it as it was, and its pid."""
    made = Live(devnet, tmp_path_factory.mktemp("service") / "data")
    with made.running() as pid:
        yield made, pid


@pytest.fixture
def live(running: tuple[Live, int]) -> Live:
    return running[0]


def test_the_same_signed_bytes_are_let_in_once_whichever_worker_they_reach(live: Live) -> None:
    raw = live.raw(live.signed("GET", "/v1/keys"))
    answers = live.ask_at_once([raw] * 20)
    assert sorted(one.status for one in answers) == [200, *[401] * 19]
    assert {one.code for one in answers if one.status == 401} == {"replayed"}


def test_a_hundred_copies_of_a_request_at_once_are_one_release(live: Live) -> None:
    (consent,) = live.consents(1)
    answers = live.ask_at_once([live.asking(consent, "the-same") for _ in range(100)])
    assert [one.status for one in answers] == [200] * 100
    assert len({one.body for one in answers}) == 1
    assert len(live.events("AccessRecorded", [consent])) == 1


def test_a_consent_for_one_use_that_is_asked_a_hundred_times_at_once_is_used_once(live: Live) -> None:
    (consent,) = live.consents(1, max_accesses=1, accesses_per_day=1)
    answers = live.ask_at_once([live.asking(consent, f"key-{number}") for number in range(100)])
    assert sorted(one.status for one in answers) == [200, *[403] * 99]
    assert {one.code for one in answers if one.status == 403} <= {"exhausted", "daily_limit"}
    assert len(live.events("AccessRecorded", [consent])) == 1


# --------------------------------------------------------------------------------------------------------- slow clients

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"GET /healthz HT",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST /v1/batch/releases HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /v1/batch/releases HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n{",
        b"POST /v1/batch/releases HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"nonsense\r\n\r\n",
    ],
)
def test_clients_that_stall_keep_nobody_else_waiting(live: Live, part: bytes) -> None:
    # More of them than there are threads, and for longer than others are willing to wait.
    stalled = [live.connect() for _ in range(140)]
    try:
        for connection in stalled:
            connection.send(part)
        answers = at_once(lambda raw: live.ask(raw, patience=REQUEST_SECONDS / 2), [HEALTH] * 8)
        assert [one.status for one in answers] == [200] * 8
    finally:
        for connection in stalled:
            connection.close()


def test_a_client_that_takes_no_answers_loses_its_connection_and_nothing_else(live: Live) -> None:
    greedy = [live.connect() for _ in range(70)]
    try:
        for connection in greedy:
            connection.send(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        assert live.ask(HEALTH).status == 200
    finally:
        for connection in greedy:
            connection.close()


def test_what_a_client_began_is_ended_when_its_time_is_over(live: Live) -> None:
    began = {
        b"GET /healthz HTTP/1.1\r\nX-Slow: ": 408,
        b"POST /v1/batch/releases HTTP/1.1\r\nContent-Length: 10\r\n\r\n{": 408,
        b"": 0,
    }

    def begin(part: bytes) -> tuple[int, bool]:
        with live.connect() as connection:
            connection.send(part)
            return connection.read().status, connection.is_open()

    ended = at_once(begin, list(began))
    assert ended == [(status, False) for status in began.values()]


# ------------------------------------------------------------------------------------------------------- many of them


LISTENS: Final = "0A"


def connections_of_workers(service: int, port: int) -> list[int]:
    """How many connections each worker has accepted and not closed. Its other sockets (to the node) come and go."""
    # A row is: number, local address, remote address, state, five more, inode (proc_net_tcp in the kernel's documents).
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    accepted = {f"socket:[{row[9]}]" for row in rows if row[3] != LISTENS and int(row[1].partition(":")[2], 16) == port}
    return [
        sum(str(each.readlink()) in accepted for each in Path(f"/proc/{pid}/fd").iterdir())
        for pid in workers_of(service)
    ]


def test_connections_are_spread_evenly_over_the_workers(running: tuple[Live, int]) -> None:
    live, service = running
    deadline = time.monotonic() + 60
    while any(connections_of_workers(service, live.port)) and time.monotonic() < deadline:
        time.sleep(0.05)  # Those of clients before, whose end a worker has yet to see.
    with ExitStack() as held:
        connections = [held.enter_context(live.connect()) for _ in range(40)]
        for connection in connections:
            connection.send(HEALTH)
        assert [connection.read().status for connection in connections] == [200] * 40
        taken = connections_of_workers(service, live.port)
    assert sum(taken) == 40
    assert abs(taken[0] - taken[1]) <= 4, taken


def test_a_worker_that_stands_still_keeps_no_connection_from_the_other(running: tuple[Live, int]) -> None:
    # The one that stands still has the fewest soon, and all are left to it for a moment.
    live, service = running
    still = workers_of(service)[0]
    os.kill(still, signal.SIGSTOP)
    try:
        with ExitStack() as held:
            connections = [held.enter_context(live.connect(patience=REQUEST_SECONDS)) for _ in range(40)]
            for connection in connections:
                connection.send(HEALTH)
            assert [connection.read().status for connection in connections] == [200] * 40
    finally:
        os.kill(still, signal.SIGCONT)


# ---------------------------------------------------------------------------------------------------- on one connection


def test_a_connection_is_kept_from_request_to_request(live: Live) -> None:
    with live.connect() as connection:
        for _ in range(5):
            connection.send(live.raw(live.signed("GET", "/v1/keys")))
            assert connection.read().status == 200


def test_requests_that_are_sent_without_waiting_are_answered_in_their_order(live: Live) -> None:
    (consent,) = live.consents(1)
    asked = [
        live.raw(live.signed("GET", "/v1/keys")),
        live.asking(consent, "pipelined"),
        HEALTH,
        live.raw(live.signed("GET", f"/v1/consents/{consent}")),
        live.raw(live.signed("GET", "/v1/webhook")),
    ]
    whole = b"".join(asked)
    # Also when they are cut in odd places.
    for pieces in (
        [whole],
        [whole[:700], whole[700:701], whole[701:]],
        [whole[i : i + 97] for i in range(0, len(whole), 97)],
    ):
        with live.connect() as connection:
            for piece in pieces:
                connection.send(piece)
            answers = [connection.read() for _ in asked]
        statuses = [one.status for one in answers]
        # Signed once and sent again, they are replays.
        assert statuses in ([200] * 5, [401, 401, 200, 401, 401])
    assert len(live.events("AccessRecorded", [consent])) == 1


def test_a_client_that_asks_before_it_sends_the_body_is_told_to_go_on(live: Live) -> None:
    (consent,) = live.consents(1)
    message = live.signed("POST", f"/v1/consents/{consent}/releases", WANTED, key="with-leave")
    raw = live.raw(message, extra=["Expect: 100-continue"])
    head, body = raw[: -len(message.body)], message.body
    with live.connect() as connection:
        connection.send(head)
        assert connection.read_line() == b"HTTP/1.1 100 Continue\r\n"
        assert connection.read_line() == b"\r\n"
        connection.send(body)
        assert connection.read().status == 200


def test_a_body_that_is_too_large_is_refused_and_the_refusal_arrives(live: Live) -> None:
    message = live.signed("POST", "/v1/batch/releases", "x" * 2_000_000)
    answer = live.ask(live.raw(message))
    assert (answer.status, answer.headers["content-type"]) == (413, "application/problem+json")
    with live.connect() as connection:
        # Before it is sent.
        connection.send(live.raw(message)[: -len(message.body)])
        assert connection.read().status == 413
        assert not connection.is_open()


ODD_FRAMES = {
    "in pieces": (["Transfer-Encoding: chunked"], b"2\r\n{}\r\n0\r\n\r\n", 411),
    "in pieces without an end": (["Transfer-Encoding: chunked"], b"ffffff\r\n{}", 411),
    "in pieces and of a length": (["Transfer-Encoding: chunked", "Content-Length: 2"], b"2\r\n{}\r\n0\r\n\r\n", 400),
    "in pieces, hidden": (["Transfer-Encoding: \tchunked", "Content-Length: 2"], b"{}", 400),
    "in pieces, unknown": (["Transfer-Encoding: xchunked"], b"2\r\n{}\r\n0\r\n\r\n", 501),
    "two lengths": (["Content-Length: 2", "Content-Length: 3"], b"{}x", 400),
    "two lengths in one": (["Content-Length: 2, 2"], b"{}", 400),
    "a length that is none": (["Content-Length: two"], b"{}", 400),
    "a negative length": (["Content-Length: -2"], b"{}", 400),
    "a signed length": (["Content-Length: +2"], b"{}", 400),
    "a long length": (["Content-Length: " + "9" * 30], b"{}", 413),
    "a blank before the colon": (["Content-Length : 2"], b"{}", 400),
    "a folded header": (["X-Name: a", " b"], b"", 400),
    "a bare line feed": (["X-Name: a\nContent-Length: 2"], b"{}", 400),
    "a zero byte": (["X-Name: a\0b"], b"", 400),
    "a header without a name": ([": a"], b"", 400),
    "a long header": (["X-Name: " + "a" * 9_000], b"", 431),
    "a very long header": (["X-Name: " + "a" * 100_000], b"", 431),
    "many headers": ([f"X-{number}: a" for number in range(60)], b"", 431),
    "an unknown expectation": (["Expect: nothing"], b"", 417),
}


@pytest.mark.parametrize("what", ODD_FRAMES)
def test_a_request_whose_end_can_be_found_in_two_ways_is_refused_and_its_connection_closed(
    live: Live, what: str
) -> None:
    headers, body, status = ODD_FRAMES[what]
    lines = ["POST /v1/batch/releases HTTP/1.1", "Host: x", "Content-Type: application/json", *headers, "", ""]
    # What a second request would be, if the first one ended earlier than it did.
    smuggled = live.raw(live.signed("GET", "/v1/keys"))
    with live.connect() as connection:
        connection.send("\r\n".join(lines).encode() + body + smuggled)
        answer = connection.read()
        assert answer.status == status, answer
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["status"] == status
        assert not connection.is_open()


@pytest.mark.parametrize("sent", [-1, 1])
def test_a_body_of_another_length_than_it_says_is_not_what_was_signed(live: Live, sent: int) -> None:
    (consent,) = live.consents(1)
    message = live.signed("POST", f"/v1/consents/{consent}/releases", WANTED, key="of-another-length")
    raw = live.raw(message)
    length = len(message.body)
    raw = raw.replace(f"Content-Length: {length}".encode(), f"Content-Length: {length - sent}".encode())
    with live.connect() as connection:
        connection.send(raw)
        connection.end()
        assert connection.read().status in (0, 401)
    assert live.events("AccessRecorded", [consent]) == []


# ---------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    "target",
    [
        "//v1//keys",
        "//v1/keys",
        "/v1//keys",
        "/v1/keys/",
        "/v1/./keys",
        "/v1/../v1/keys",
        "/v1/%2e%2e/v1/keys",
        "/v1%2fkeys",
        "/v1/keys%00",
        "/v1/keys%0d%0aX-Injected:1",
        "/v1/keys;x=1",
        "/V1/keys",
        "/v1/keys?",
        "/v1/keys#x",
        "/%76%31/keys",
        "/healthz/../v1/keys",
        "x:/v1/keys?://a/v1/webhook",
        "x://a/v1/keys",
        "http://127.0.0.1/v1/keys",
        "http://evil.example@127.0.0.1/v1/keys",
        "http:///v1/keys",
        "/v1/%zz",
        "/v1/keys?a=%zz",
        '/v1/"keys"',
        "/v1/\\keys",
        "*",
        "v1/keys",
        "",
    ],
)
def test_no_way_to_write_a_path_gets_past_the_door(live: Live, target: str) -> None:
    """Not unsigned, and not with a signature for another path."""
    unsigned = live.ask(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert unsigned.status in (400, 401, 404), unsigned
    borrowed = live.ask(live.raw(live.signed("GET", "/v1/webhook"), target=target))
    assert borrowed.status in (400, 401, 404), borrowed


def test_what_was_signed_is_served_in_the_absolute_form_too(live: Live) -> None:
    assert live.ask(live.raw(live.signed("GET", "/v1/keys"), target="http://proxy.example/v1/keys")).status == 200


@pytest.mark.parametrize(
    "header",
    [
        "SCRIPT_NAME: /v1",
        "SCRIPT_NAME: /nothing",
        "PATH_INFO: /v1/webhook",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Prefix: /v1",
        "X-Forwarded-Host: evil.example",
        "Forwarded: host=evil.example;proto=https",
        "X-Original-URL: /v1/webhook",
        "X-Rewrite-URL: /v1/webhook",
        "X-HTTP-Method-Override: DELETE",
        "Host: evil.example",
        "Idempotency_Key: another",
        "Content_Digest: sha-256=:AAAA:",
        "Signature_Input: x",
    ],
)
def test_a_header_that_was_not_signed_changes_nothing(live: Live, header: str) -> None:
    raw = live.raw(live.signed("GET", "/v1/keys"), extra=[header])
    answer = live.ask(raw)
    assert answer.status in (200, 400), answer
    assert answer.status == 400 or answer.json["keys"]


@pytest.mark.parametrize("name", ["Signature", "Signature-Input", "Idempotency-Key", "Content-Digest"])
def test_a_signed_header_that_comes_twice_is_refused(live: Live, name: str) -> None:
    (consent,) = live.consents(1)
    message = live.signed("POST", f"/v1/consents/{consent}/releases", WANTED, key="twice")
    for value in (message.header(name), "x"):
        assert live.ask(live.raw(message, extra=[f"{name}: {value}"])).status == 401
    assert live.events("AccessRecorded", [consent]) == []


# -------------------------------------------------------------------------------------------------------------- the log

CANARY = "Jane-Canary"
LOG_LINE = f"[2026-01-01 00:00:00 +0000] [1] [ERROR] {CANARY}"
IN_A_PATH = quote(f"{CANARY}\r\n{LOG_LINE}\x1b[31m")
LOGGED = re.compile(r"\[[0-9-]{10} [0-9:]{8} [+-][0-9]{4}\] \[[0-9]+\] \[WARNING\] no request: [A-Za-z]+")
NASTY = (
    f"{CANARY} / HTTP/1.1\r\n\r\n",
    f"GET /{CANARY} {CANARY}\r\n\r\n",
    f"GET {CANARY} HTTP/1.1\r\n\r\n",
    f"GET /{IN_A_PATH} HTTP/1.1\r\nHost: x\r\n\r\n",
    f"GET /v1/{IN_A_PATH} HTTP/1.1\r\nHost: x\r\n\r\n",
    f"GET /v1/keys?{IN_A_PATH} HTTP/1.1\r\nHost: x\r\n\r\n",
    f"PUT /v1/subjects/{IN_A_PATH}/attributes HTTP/1.1\r\nHost: x\r\n\r\n",
    f"GET /docs/{IN_A_PATH} HTTP/1.1\r\nHost: x\r\n\r\n",
    f"GET /v1/keys HTTP/1.1\r\nX-Name: \x1b[31m{CANARY}\r\n\r\n",
    f"GET /v1/keys HTTP/1.1\r\n{CANARY}\r\n\r\n",
    f"GET /v1/keys HTTP/1.1\r\n({CANARY}): x\r\n\r\n",
    f"GET /v1/keys HTTP/1.1\r\nX-Name: a\n{LOG_LINE}\r\n\r\n",
    f"GET /v1/keys HTTP/1.1\r\nX-Name: {CANARY * 2_000}\r\n\r\n",
    f"GET /{CANARY * 2_000} HTTP/1.1\r\n\r\n",
    f"GET /v1/keys HTTP/1.1\r\nExpect: {CANARY}\r\n\r\n",
    f"GET /v1/keys HTTP/1.1\r\nSCRIPT_NAME: /{CANARY}\r\nX-Forwarded-Proto: {CANARY}\r\n\r\n",
    f"GET /v1/keys HTTP/1.1\r\nTransfer-Encoding: {CANARY}\r\n\r\n",
    f"GET /v1/keys HTTP/1.1\r\nContent-Length: {CANARY}\r\n\r\n",
    f'GET /v1/keys HTTP/1.1\r\nSignature-Input: sig=();keyid="{CANARY}#{CANARY}"\r\nSignature: {CANARY}\r\n\r\n',
    f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{CANARY}",
)


def test_the_log_says_nothing_that_was_sent_and_names_nobody(live: Live) -> None:
    (consent,) = live.consents(1)
    for raw in NASTY:
        answer = live.ask(raw.encode("latin-1"))
        assert 400 <= answer.status < 500 or answer.status == 501, answer
        assert CANARY.encode() not in answer.body
    assert live.ask(live.asking(consent, CANARY)).status == 200
    for path in (f"/v1/consents/{consent}", f"/v1/releases/{consent}", f"/v1/{IN_A_PATH}"):
        live.ask(live.raw(live.signed("GET", path)))
    log = live.log.read_text("utf-8")
    told = log.splitlines()
    # What is on file there was written, and by nobody else.
    assert told
    assert [line for line in told if not LOGGED.fullmatch(line)] == []
    for name in (CANARY, "anary", "\x1b", consent, live.lender.institution_id, live.subject.ref, live.subject.address):
        assert name not in log
