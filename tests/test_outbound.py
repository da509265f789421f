"""Requests to addresses that others named: only to where they may go, to exactly what was checked, never for long."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from receiver import Certificate, Receiver, free_port, raw, status

from ledger import outbound
from ledger.errors import MalformedError
from ledger.outbound import Outbound
from ledger.signatures import HttpRequest

PUBLIC = "93.184.215.14"
Resolver = Callable[..., list[tuple[object, ...]]]


def message(url: str) -> HttpRequest:
    return HttpRequest(method="POST", url=url, headers={"Content-Type": "application/json"}, body=b"{}")


def resolving(*answers: list[str]) -> tuple[Resolver, list[str]]:
    """A resolver that gives these addresses, one list after the other, the last for ever; and what it was asked."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        found = answers[min(len(asked), len(answers) - 1)]
        asked.append(host)
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(families[":" in one], socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    return resolve, asked


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path, "hook.example")


@pytest.fixture
def secure(certificate: Certificate) -> Iterator[Receiver]:
    made = Receiver(certificate=certificate)
    yield made
    made.close()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "TIMEOUT_SECONDS", 0.3)


# ----------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "url",
    [
        "https://hook.example/",
        "https://hook.example/a/b?c=d&e=%20",
        "https://hook.example:443/",
        "https://hook.example:1024/",
        "https://hook.example:65535/",
        "https://xn--bcher-kva.example/",
        f"https://{PUBLIC}/",
        "https://[2606:4700::1111]:8443/",
    ],
)
def test_a_public_address_may_be_named(url: str) -> None:
    Outbound(insecure=False).check(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook.example",
        "http://hook.example/",
        "http://hook.example:443/",
        "http://hook.example:8080/",
        "ftp://hook.example/",
        "file:///etc/passwd",
        "https:///",
        "https://hook.example",
        "https://hook.example/#fragment",
        "https://user@hook.example/",
        "https://user:password@hook.example/",
        "https://hook.example\\@other.example/",
        "https://hook.example/ /",
        "https://hook.example/\r\nX: y",
        "https://hook.example/\n",
        "https://hook.example/ä",
        "https://HOOK.example/",
        "https://hook.example./",
        "https://hook.example:/",
        "https://hook.example:22/",
        "https://hook.example:80/",
        "https://hook.example:1023/",
        "https://hook.example:65536/",
        "https://hook.example:99999/",
        "https://hook.example:0/",
        "https://hook.example:443:443/",
        "https://[::1/",
        "https://hook.example/" + "a" * 500,
        # Hosts of private networks, in each of the forms that a resolver or a library may read.
        "https://localhost/",
        "https://intranet/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://hook.1/",
        "https://0.0.0.0/",
        "https://10.0.0.1/",
        "https://172.16.0.1/",
        "https://192.168.0.1/",
        "https://100.64.0.1/",
        "https://169.254.169.254/",
        "https://192.0.0.192/",
        "https://168.63.129.16/",
        "https://224.0.0.1/",
        "https://240.0.0.1/",
        "https://255.255.255.255/",
        "https://[::]/",
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[fc00::1]/",
        "https://[fec0::1]/",
        "https://[ff02::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[2001:db8::1]/",
    ],
)
def test_what_is_not_public_cannot_be_named_and_the_error_says_which_field(url: str) -> None:
    with pytest.raises(MalformedError, match=r"\Aurl: expected") as refused:
        Outbound(insecure=False).check(url)
    assert refused.value.field == "url"
    assert Outbound(insecure=False).post(message(url)) == "refused_address"


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["0.0.0.0"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["fe80::1%eth0"],
        ["fd00::1"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        ["2606:4700::1111", "::1"],
    ],
)
def test_a_name_is_refused_if_any_of_its_addresses_is_private(
    monkeypatch: pytest.MonkeyPatch, secure: Receiver, certificate: Certificate, addresses: list[str]
) -> None:
    resolve, asked = resolving(addresses)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    sender = Outbound(insecure=False, tls=certificate.client_context())
    assert sender.post(message(secure.url("hook.example"))) == "refused_address"
    assert asked == ["hook.example"]
    assert secure.requests == []


def test_a_name_that_resolves_to_another_address_a_moment_later_gains_nothing(
    monkeypatch: pytest.MonkeyPatch, certificate: Certificate
) -> None:
    # 127.0.0.2 stands for a public host, 127.0.0.1 for the private one that the attacker wants to reach.
    public = Receiver(host="127.0.0.2", certificate=certificate)
    private = Receiver(host="127.0.0.1", port=public.port, certificate=certificate)
    resolve, asked = resolving(["127.0.0.2"], ["127.0.0.1"])
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(outbound, "_is_public", lambda text: text == "127.0.0.2")
    monkeypatch.setattr(outbound, "_may_be_public", lambda text: text == "hook.example")
    sender = Outbound(insecure=False, tls=certificate.client_context())
    assert sender.post(message(public.url("hook.example"))) == "204"
    assert asked == ["hook.example"]
    assert (len(public.requests), len(private.requests)) == (1, 0)
    # And once it is the private address that is resolved, nothing is sent at all.
    assert sender.post(message(public.url("hook.example"))) == "refused_address"
    assert (len(public.requests), len(private.requests)) == (1, 0)
    public.close()
    private.close()


def test_an_address_that_does_not_answer_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving(["127.0.0.3", "127.0.0.1"])[0])
    assert Outbound(insecure=True).post(message(receiver.url("hook.example"))) == "204"


# ----------------------------------------------------------------------------------------------------------------- TLS


def test_the_name_is_what_the_certificate_is_checked_for_and_what_the_host_is_told(
    monkeypatch: pytest.MonkeyPatch, secure: Receiver, certificate: Certificate
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving(["127.0.0.1"])[0])
    sender = Outbound(insecure=True, tls=certificate.client_context())
    assert sender.post(message(secure.url("hook.example"))) == "204"
    assert secure.names == ["hook.example"]
    assert secure.requests[0].url == secure.url("hook.example")


def test_a_certificate_of_another_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, secure: Receiver, certificate: Certificate
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving(["127.0.0.1"])[0])
    sender = Outbound(insecure=True, tls=certificate.client_context())
    assert sender.post(message(secure.url("other.example"))) == "tls"
    assert secure.requests == []


def test_a_certificate_that_no_one_vouches_for_is_refused(monkeypatch: pytest.MonkeyPatch, secure: Receiver) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving(["127.0.0.1"])[0])
    assert Outbound(insecure=True).post(message(secure.url("hook.example"))) == "tls"
    assert secure.requests == []


def test_a_host_that_speaks_no_tls_is_refused(receiver: Receiver) -> None:
    assert Outbound(insecure=True).post(message(receiver.url().replace("http:", "https:"))) == "tls"


# ------------------------------------------------------------------------------------------------------------- answers


def test_what_arrives_is_what_was_to_be_sent(receiver: Receiver) -> None:
    url = receiver.url() + "/a%20b?c=d"
    sent = HttpRequest(
        method="POST", url=url, headers={"Content-Type": "application/json", "X-Y": "z"}, body=b'{"a":1}'
    )
    assert Outbound(insecure=True).post(sent) == "204"
    (got,) = receiver.requests
    assert (got.url, got.body) == (url, sent.body)
    assert sent.headers.items() <= got.headers.items()


@pytest.mark.parametrize("authority", ["hook.example", "hook.example:8443"])
def test_the_host_is_named_as_in_the_url_that_was_signed(monkeypatch: pytest.MonkeyPatch, authority: str) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(socket, "getaddrinfo", resolving([PUBLIC])[0])
    monkeypatch.setattr(outbound, "_connected", lambda _addresses: ours)
    monkeypatch.setattr(Outbound, "_secured", lambda _self, sock, _place: sock)
    with theirs:
        theirs.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert Outbound(insecure=False).post(message(f"https://{authority}/")) == "204"
        assert f"\r\nHost: {authority}\r\n".encode() in theirs.recv(10_000)


def test_a_redirect_is_an_answer_like_any_other(receiver: Receiver) -> None:
    receiver.answers = [status(307, Location=receiver.url())]
    assert Outbound(insecure=True).post(message(receiver.url())) == "307"
    assert len(receiver.requests) == 1


def test_an_endless_body_is_not_read(receiver: Receiver) -> None:
    receiver.answers = [raw(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 1_000_000] * 1000)]
    assert Outbound(insecure=True).post(message(receiver.url())) == "200"
    assert receiver.hung_up.wait(60)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (raw(b"220 mail.example ESMTP\r\n"), "not_http"),
        (raw(b"HTTP/1.1 2000 OK\r\n\r\n"), "not_http"),
        (raw(b"HTTP/1.1 \r\n\r\n"), "not_http"),
        (raw(b"\x00" * 100), "not_http"),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n"), "not_http"),
        (raw(b"HTTP/1.1 200 " + b"x" * 100_000), "not_http"),
        (raw(), "unreachable"),
    ],
)
def test_what_is_not_an_answer_is_a_failure_of_its_kind(
    receiver: Receiver, answer: Callable[[object], object], kind: str
) -> None:
    receiver.answers = [answer]
    assert Outbound(insecure=True).post(message(receiver.url())) == kind


def test_where_no_one_listens_is_unreachable() -> None:
    assert Outbound(insecure=True).post(message(f"http://127.0.0.1:{free_port()}/")) == "unreachable"


@pytest.mark.parametrize("refusal", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
def test_a_name_that_does_not_resolve_is_a_failure_of_its_kind(
    monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert Outbound(insecure=False).post(message("https://hook.example/")) == "unresolved"


# --------------------------------------------------------------------------------------------------------------- time


@pytest.mark.usefixtures("short")
def test_a_receiver_that_does_not_answer_is_left(receiver: Receiver) -> None:
    gate = threading.Event()
    receiver.answers = [lambda _handler: gate.wait(60)]
    assert Outbound(insecure=True).post(message(receiver.url())) == "timeout"
    gate.set()


@pytest.mark.usefixtures("short")
def test_a_receiver_that_answers_a_byte_at_a_time_is_left_as_well(receiver: Receiver) -> None:
    # Each byte comes in time; together they would take for ever.
    receiver.answers = [raw(b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n"] * 50, b"\r\n", pause=0.1)]
    assert Outbound(insecure=True).post(message(receiver.url())) == "timeout"
    assert receiver.hung_up.wait(20)


@pytest.mark.usefixtures("short")
def test_a_receiver_that_drips_over_tls_is_left_as_well(
    monkeypatch: pytest.MonkeyPatch, secure: Receiver, certificate: Certificate
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving(["127.0.0.1"])[0])
    secure.answers = [raw(b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n"] * 50, b"\r\n", pause=0.1)]
    sender = Outbound(insecure=True, tls=certificate.client_context())
    assert sender.post(message(secure.url("hook.example"))) == "timeout"
    assert secure.hung_up.wait(20)


@pytest.mark.usefixtures("short")
def test_a_host_that_never_shakes_hands_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # In the end it hangs up, so that whoever waits for it sees something else than a timeout.
        hang_up = threading.Timer(10, listening.close)
        hang_up.start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}/"
        assert Outbound(insecure=True).post(message(url)) == "timeout"
        hang_up.cancel()
        hang_up.join()
