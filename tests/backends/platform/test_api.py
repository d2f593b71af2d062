"""One call: bounded in time and size, repeated where that is safe, and said well where it fails."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time

import httpx2
import pytest

from finetune.backends.platform import check_egress
from finetune.backends.platform.access import Key, find_key, read_address
from finetune.backends.platform.retry import Pace, Refused, Unclear, read_wait
from finetune.errors import PlatformError, RecipeError
from tests.backends.platform.faults import CALLS, FAULTS, KEY, Raw, open_client
from tests.backends.platform.simulation import Time


@pytest.fixture
def raw():
    made = Raw()
    yield made
    made.close()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_each_call_in_time_with_its_exit_code_and_without_the_key(name, raw):
    fault, code = FAULTS[name]
    client = open_client(raw.url)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for call, make in CALLS.items():
        # These shapes are what a download and a chat may be.
        fine = (call, name) == ("chat", "JSON of another shape") or (
            call == "download" and name in ("a portal's page", "JSON of another shape")
        )
        fine = fine or (call == "download" and name == "half a JSON without a length")
        raw.fault = fault
        started = time.monotonic()
        if fine:
            make(client)
        else:
            with pytest.raises(PlatformError) as caught:
                make(client)
            assert (call, caught.value.exit_code) == (call, code)
            assert caught.value.hint or isinstance(caught.value, Refused), call
            assert KEY not in str(caught.value) + str(caught.value.__cause__)
        # Two tries of 0.4 s at most, and time for a busy machine to notice: how late a call ends
        # at most is measured by `benchmarks/submissions.py faults`.
        assert time.monotonic() - started < 10, call
        raw.rest()
    client.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < 64_000, f"{grown} kB"


@pytest.mark.parametrize("call", ["upload", "create", "start"])
def test_what_must_not_be_done_twice_is_sent_once(call, raw):
    client = open_client(raw.url)
    for name in ("silence", "reset", "half a JSON without a length", "busy for ever"):
        raw.fault = FAULTS[name][0]
        with pytest.raises(Unclear):
            CALLS[call](client)
        assert len(raw.heard) == 1
        raw.rest()


def test_why_there_is_no_connection_is_said():
    def speak_plainly():
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as line:
                    line.recv(1)
                    line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.socket() as deaf, socket.create_server(("127.0.0.1", 0)) as listener:
        deaf.bind(("127.0.0.1", 0))  # never listens
        thread = threading.Thread(target=speak_plainly, daemon=True)
        thread.start()
        for scheme, port, fact in (
            ("http", deaf.getsockname()[1], "connection refused"),
            ("https", listener.getsockname()[1], "it speaks no TLS that is understood"),
        ):
            client = open_client(f"{scheme}://127.0.0.1:{port}", pace=Pace(tries=2))
            with pytest.raises(PlatformError, match=f"cannot be reached: {fact}") as caught:
                client.list_models()
            assert "finetune serve" in caught.value.hint
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_date_that_no_calendar_has_is_no_fault():
    def answer(request):
        dated = {"Date": "Thu, 01 Jan 99999 00:00:00 GMT"}
        return httpx2.Response(200, json={"data": []}, headers=dated)

    client = open_client("http://127.0.0.1:1", transport=httpx2.MockTransport(answer))
    assert (client.list_models(), client.skew) == ([], 0)


def test_what_was_never_sent_is_repeated():
    tries = []

    def refuse(request):
        tries.append(request)
        raise httpx2.ConnectError("refused")

    client = open_client("http://127.0.0.1:1", transport=httpx2.MockTransport(refuse))
    with pytest.raises(PlatformError, match="cannot be reached") as caught:
        client.create_job({})
    assert (len(tries), caught.value.exit_code) == (2, 5)


@pytest.mark.parametrize(
    "header", ["3", "0", "-5", "soon", "Thu, 09 Oct 2025 08:53:30 GMT", "1e9", ""]
)
def test_a_service_is_waited_for_as_long_as_it_asks_within_bounds(header):
    clock = Time()

    def busy(request):
        return httpx2.Response(429, headers={"retry-after": header})

    client = open_client(
        "https://api.mistral.ai", pace=Pace(), transport=httpx2.MockTransport(busy),
        clock=clock.clock, sleep=clock.sleep, wall=clock.wall,
    )  # fmt: skip
    with pytest.raises(PlatformError):
        client.list_models()
    assert clock.now <= 180
    if header == "3":
        assert clock.now == 12
    if header == "1e9":
        assert clock.now == 0


@pytest.mark.parametrize(
    ("text", "option"),
    [("api.mistral.ai", ""), ("http://127.0.0.1:8000", " --host http://127.0.0.1:8000/v1")],
)
def test_a_command_that_is_named_goes_to_the_same_service(text, option):
    assert read_address(text).option == option


def test_a_date_to_wait_until_counts_from_now():
    assert read_wait({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, 20) == 40
    assert read_wait({"retry-after-ms": "1500"}, 0) == 1.5


@pytest.mark.parametrize(
    "text",
    ["http://example.org", "http://127.0.0.1@evil.org", "ftp://api.mistral.ai", "https://u:p@h.org",
     "http://localhost.evil.org", "http://2130706433", "http://localhost.", "https://h.org/?a=b",
     "https://h.org/#a", "https://", "http://example.org:80", "http://[::1%eth0]", "https://h.org:0", "file:///etc/passwd",
     "http://0x7f000001", "http://api.mistral.ai", "https://h\x00.org", "https://münchen.de"],
)  # fmt: skip
def test_an_address_that_would_give_the_key_away_is_refused(text):
    with pytest.raises(RecipeError):
        read_address(text)


@pytest.mark.parametrize(
    ("text", "url", "local"),
    [
        ("api.mistral.ai", "https://api.mistral.ai/v1", False),
        ("https://api.mistral.ai/v1/", "https://api.mistral.ai/v1", False),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000", "http://[::1]:8000/v1", True),
        ("https://ft.example.org/team", "https://ft.example.org/team/v1", False),
    ],
)
def test_an_address_is_read(text, url, local):
    address = read_address(text)
    assert (address.url, address.local) == (url, local)


def test_a_redirect_is_not_followed(raw):
    other = Raw()
    location = f"Location: {other.url}/\r\n".encode()
    raw.fault = lambda connection, _: connection.sendall(
        b"HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\n" + location + b"\r\n"
    )
    with pytest.raises(PlatformError, match="redirects"):
        open_client(raw.url).list_models()
    assert other.heard == []
    other.close()


def test_a_proxy_of_the_environment_does_not_get_the_key(raw, monkeypatch):
    proxy = Raw()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    assert open_client(raw.url).list_jobs() == []
    assert proxy.heard == []
    assert raw.heard
    proxy.close()


@pytest.mark.parametrize(
    "text", ["", "short", "two words here", "line\nbreak-12", "é" * 12, "x" * 257]
)
def test_a_key_that_is_none_is_refused_without_being_shown(text):
    with pytest.raises(PlatformError) as caught:
        Key(text)
    assert caught.value.exit_code == 4
    assert not text or text not in caught.value.message


def test_a_key_does_not_print_itself():
    key = Key(f" {KEY}\n")
    assert KEY not in f"{key!r} {key} {vars(type(key))}"
    assert key.reveal() == KEY
    assert key.hide(f"Bearer {KEY}!") == "Bearer ***!"


def test_no_key_is_exit_4_with_the_ways_to_give_one():
    with pytest.raises(PlatformError, match="no key") as caught:
        find_key(read_address("api.mistral.ai"), {})
    assert caught.value.exit_code == 4
    assert "MISTRAL_API_KEY" in caught.value.hint
    assert "keyring set finetune api.mistral.ai" in caught.value.hint


def test_pages_that_move_while_they_are_read_lose_and_repeat_nothing():
    jobs = [{"id": str(number), "status": "SUCCESS"} for number in range(250)]

    def page(request):
        size = int(request.url.params["page_size"])
        start = int(request.url.params["page"]) * size
        rows = jobs[start : start + size]
        jobs.insert(0, {"id": f"new {start}", "status": "QUEUED"})  # newest first
        return httpx2.Response(200, json={"data": rows})

    client = open_client("https://api.mistral.ai", transport=httpx2.MockTransport(page))
    found = [job.id for job in client.list_jobs()]
    assert found == [str(number) for number in range(250)]


@pytest.mark.parametrize(
    "body",
    [b"[]", b'{"data": null}', b'{"data": [{"id": "m", "object": "model", "new": {"a": 1}}]}',
     b'[{"id": "m", "TYPE": "base", "capabilities": null}]'],
)  # fmt: skip
def test_what_a_service_adds_or_leaves_out_is_put_up_with(body):
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=body))
    cards = open_client("https://api.mistral.ai", transport=transport).list_models()
    assert [card.id for card in cards] in ([], ["m"])
    assert not any(card.can_be_tuned for card in cards)


def test_a_refusal_says_what_the_service_said_and_no_more():
    def refuse(request):
        fault = {"loc": ["body", "model"], "msg": f"no \x1b[2J{KEY}", "input": "someone's text"}
        return httpx2.Response(422, json={"detail": [fault]})

    client = open_client("https://api.mistral.ai", transport=httpx2.MockTransport(refuse))
    with pytest.raises(Refused, match=r"body\.model: no") as caught:
        client.create_job({})
    assert "someone" not in caught.value.message
    assert KEY not in caught.value.message
    assert "\x1b" not in caught.value.message


def test_notices_of_an_end_are_kept_once():
    headers = {"x-model-deprecation-timestamp": "2026-12-31"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=[], headers=headers))
    client = open_client("https://api.mistral.ai", transport=transport)
    client.list_models()
    client.list_models()
    assert client.notices == ["x-model-deprecation-timestamp: 2026-12-31"]


def test_records_go_to_no_host_that_the_recipe_leaves_out(prepared):
    recipe, dataset = prepared
    closed = recipe.model_copy(
        update={"egress": recipe.egress.model_copy(update={"hosts": ["ft.example.org"]})}
    )
    check_egress(closed, dataset, read_address("https://ft.example.org:8443"))
    check_egress(closed, dataset, read_address("http://127.0.0.1:8000"))
    with pytest.raises(RecipeError, match=r"egress\.hosts"):
        check_egress(closed, dataset, read_address("api.mistral.ai"))


def test_personal_data_that_were_not_looked_for_do_not_leave(prepared):
    recipe, dataset = prepared
    strict = recipe.model_copy(
        update={"egress": recipe.egress.model_copy(update={"personal_data": "none"})}
    )
    with pytest.raises(RecipeError, match="not looked for"):
        check_egress(strict, dataset, read_address("api.mistral.ai"))
    check_egress(strict, dataset, read_address("http://127.0.0.1:8000"))
