"""Cases 1, 2, 7-17: what is said wrong on a connection is refused, answered, and costs nobody else anything."""

from __future__ import annotations

import json
import ssl
import zlib

import pytest

from .victim import Victim
from .wire import AGENT, BINARY, CONTINUED, TEXT, Client, context, frame, frames_until_cut, hello, tcp

pytestmark = pytest.mark.e2e
KIB64 = 65_536


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /socket.io/?EIO=4 HTTP/1.1\r\n\r\n"])
def test_01_plain_text_on_the_tls_port_gets_nothing(victim: Victim, said: bytes) -> None:
    """An alert or a close, no HTTP and no redirect."""
    with tcp(victim.server.port) as plain:
        plain.sendall(said)
        try:
            answer = plain.recv(1000)
        except ConnectionResetError:
            answer = b""
    assert b"HTTP" not in answer


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_02_old_tls_is_refused(victim: Victim, version: ssl.TLSVersion) -> None:
    """The server speaks TLS 1.3 and nothing before it."""
    old = context(victim.server.ca_file)
    old.minimum_version = old.maximum_version = version
    old.set_ciphers("ALL:@SECLEVEL=0")
    with tcp(victim.server.port) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        old.wrap_socket(plain, server_hostname="127.0.0.1")


def test_07_polling_makes_no_session(victim: Victim) -> None:
    """GET, POST and JSONP of the polling transport: 400 each, and nothing is kept."""
    before = victim.descriptors()
    visitor = victim.server.visitor()
    for query in ("EIO=4&transport=polling", "EIO=4", "EIO=4&transport=polling&j=0", "EIO=4&transport=polling&sid=x"):
        assert visitor.request(f"/socket.io/?{query}")[0] == 400
        assert visitor.request(f"/socket.io/?{query}", b"40/agent," * 1000)[0] == 400
    assert visitor.request("/socket.io/?EIO=4&transport=websocket")[0] == 400
    victim.back_to(before)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"},
        {"Origin": "https://evil.example", "Host": "evil.example"},
        {"Origin": "https://evil.example:8443", "Host": "evil.example:8443", "X-Forwarded-Host": "evil.example:8443"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
    ],
)
def test_08_a_foreign_page_opens_no_socket(victim: Victim, headers: dict[str, str]) -> None:
    """Another origin, forged forwarding headers, a rebound name: 400 before any handler."""
    with victim.client() as page:
        assert page.upgrade(**headers) == 400


def test_08_a_rebound_name_gets_no_page(victim: Victim) -> None:
    """Pages answer to their own names only."""
    assert victim.server.visitor().request("/login", Host="evil.example")[0] == 421
    assert victim.server.visitor().request("/login", Host="evil.example", X_Forwarded_Host="127.0.0.1")[0] == 421


def test_09_a_browser_is_no_agent(victim: Victim) -> None:
    """An admin's cookies and the right origin open /agent, and say nothing about who the agent is there."""
    session = victim.server.session()
    handler = next(h for h in session.opener.handlers if hasattr(h, "cookiejar"))
    cookies = "; ".join(f"{c.name}={c.value}" for c in handler.cookiejar)
    assert cookies
    with victim.client() as page:
        page.headers = {"Cookie": cookies, "Origin": victim.server.url}
        page.opened()
        assert page.ask("monitoring_data", {})["code"] == "E_STATE"
        answer = page.ask("handshake", hello("no passphrase", "browser"))
    assert (answer["state"], answer["code"]) == ("error", "E_LEGACY_DISABLED")


def test_10_unknown_namespaces_are_refused_and_then_cut(victim: Victim) -> None:
    """CONNECT_ERROR for each, and after three of them the connection ends."""
    with victim.client().opened("") as client:
        for name in ("40/admin,", "40", "40/AGENT,"):
            client.say(name)
            assert client.receive(lambda text: text.startswith("44"), 2)
        client.say("40/metrics,")
        assert client.ending(2) is None
    with victim.client().opened("") as client:
        client.say("40*,")
        assert client.ending(2) is None


def names_of_the_library() -> list[str]:
    import socketio

    from pingmon.adapters.agent_socket import AgentSocket

    names = {name for kind in (AgentSocket, socketio.Namespace, socketio.Server) for name in dir(kind)}
    return [*sorted(names - {"handshake"}), "connect", "disconnect", "message", "*", "on_handshake", "unknown-event"]


@pytest.mark.slow
def test_11_no_name_is_a_way_into_the_library(victim: Victim) -> None:
    """Reserved words and every attribute of the classes behind the namespace: E_UNKNOWN_EVENT, and nothing ran."""
    names = names_of_the_library()
    for first in range(0, len(names), 20):
        with victim.client().opened() as client:
            for name in names[first : first + 20]:
                assert client.ask(name, {"REMOTE_ADDR": "203.0.113.5"})["code"] == "E_UNKNOWN_EVENT", name


def test_11_spoofed_events_change_nothing(victim: Victim) -> None:
    """Who says `disconnect` and `connect` is still who he was."""
    with victim.agent("spoofer") as client:
        for name in ("disconnect", "connect"):
            assert client.ask(name, {"REMOTE_ADDR": "203.0.113.5"})["code"] == "E_UNKNOWN_EVENT"
        row = next(r for r in victim.server.session().json("/api/v1/agents")["agents"] if r["hostname"] == "spoofer")
        assert (row["connected"], row["observed_ip"]) == (True, "127.0.0.1")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("[null,1]", "E_MALFORMED"),
        ("[5,6]", "E_MALFORMED"),
        ("[{},6]", "E_MALFORMED"),
        ("[]", "E_MALFORMED"),
        ('{"a":1}', "E_MALFORMED"),
        ("", "E_MALFORMED"),
        ("[", "E_MALFORMED"),
        ('["handshake"]', "E_MALFORMED"),
        ('["handshake",{},1,2]', "E_MALFORMED"),
        ('["monitoring_data"]', "E_STATE"),
    ],
)
def test_12_broken_events_are_answered(victim: Victim, body: str, code: str) -> None:
    """With an acknowledgement asked for or without: never silence, and the connection stays usable."""
    with victim.client().opened() as client:
        assert client.answer(client.raw_event(body), 2)["code"] == code
        client.say(f"42{AGENT},{body}")
        event = "handshake" if body.startswith('["handshake"') else "refused"
        assert client.event(event, 2)["code"] == code
        assert client.ask("handshake", hello("wrong", "x"))["code"] == "E_LEGACY_DISABLED"


@pytest.mark.parametrize("text", ["", "x", "7", "b!!", "2probe", "5"])
def test_12_no_engine_io_ends_the_connection(victim: Victim, text: str) -> None:
    """Packets that no client of a websocket sends."""
    with victim.client().opened() as client:
        client.say(text)
        assert client.ending(2) is None


@pytest.mark.parametrize("text", ["4", "4x", "49", "44/agent,{}", '4{"a":1}', '42["handshake"]', "4" + "[" * 4000])
def test_12_no_socket_io_is_answered_where_it_can_be(victim: Victim, text: str) -> None:
    """In the namespace that was joined, or by the end of the connection."""
    with victim.client().opened() as client:
        client.say(text)
        assert client.event("refused", 2)["code"] == "E_MALFORMED"
    with victim.client().opened("") as client:
        client.say(text)
        client.ending(2)


def test_13_attachments_are_refused_at_the_first_packet(victim: Victim) -> None:
    """Ten thousand million announced, a thousand of 900 KB sent: told no, cut at the first of them, memory flat."""
    before = victim.rss_mib()
    with victim.bystander():
        for announced in ("1", "999999999", "9999999999", "99999999999"):
            with victim.agent(f"attacher-{announced}") as client:
                client.say(f'45{announced}-{AGENT},["handshake",{{"_placeholder":true,"num":0}}]')
                assert client.event("refused", 2)["code"] == "E_MALFORMED"
                assert frames_until_cut(client, b"x" * 900_000, BINARY) < 20
    assert victim.rss_mib() - before < 20


def code_of_end(client: Client, *frames: tuple[bytes, int, bool]) -> int | None:
    """The code that the connection ends with after these frames, within two seconds."""
    for payload, opcode, final in frames:
        client.send_frame(payload, opcode, final)
    return client.ending(2)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_14_a_message_in_fragments_has_one_limit(victim: Victim, opcode: int) -> None:
    """Fragments of 64 KiB without end: closed with 1009 once their sum passes 64 KiB, memory flat."""
    before = victim.rss_mib()
    with victim.bystander():
        with victim.client().opened() as client:
            assert code_of_end(client, (b"4" * KIB64, opcode, False), (b"x", CONTINUED, False)) == 1009
        with victim.client().opened() as client:
            assert frames_until_cut(client, b"4" * KIB64, opcode, CONTINUED, False) < 100
        with victim.client().opened() as client:
            client.line.sendall(frame(b"", opcode, False) + frame(b"", CONTINUED, False) * 80_000)
            assert client.ending(10) == 1009
    assert victim.rss_mib() - before < 20


@pytest.mark.parametrize("claim", [KIB64 + 1, 1 << 31, (1 << 63) - 1])
def test_15_a_frame_too_large_is_refused_unread(victim: Victim, claim: int) -> None:
    """One byte over 64 KiB, or what no machine could hold: 1009 from its head alone, nothing set aside for it."""
    before = victim.rss_mib()
    with victim.bystander(), victim.agent(f"large-{claim}") as client:
        client.send_frame(b"4", claim=claim)
        assert client.ending(2) == 1009
    assert victim.rss_mib() - before < 20


def test_15_a_stranger_gets_no_large_message_in(victim: Victim) -> None:
    """Before approval 4 KiB is the limit: E_TOO_LARGE, then the end within a second."""
    with victim.client().opened() as client:
        client.emit("handshake", "x" * 5_000)
        assert client.event("refused", 2)["code"] == "E_TOO_LARGE"
        assert client.ending(1) is None


def test_16_a_deflate_bomb_stays_shut(victim: Victim) -> None:
    """Compression is not agreed on, so a compressed frame is a fault of the protocol, and swells nowhere."""
    before = victim.rss_mib()
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = squeeze.compress(b"4" * 10_000_000) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    with victim.bystander(), victim.client() as client:
        client.headers = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
        client.opened()
        assert "extensions" not in client.answer_headers.lower()
        client.send_frame(bomb[:-4], rsv=4)
        assert client.ending(2) in (1002, 1009)
    assert victim.rss_mib() - before < 20


def test_16_the_websocket_of_2010_is_not_spoken(victim: Victim) -> None:
    """Without a version eventlet would speak hixie-76, which has no limit for anything."""
    old = {
        "Sec_WebSocket_Version": "",
        "Sec_WebSocket_Key": "",
        "Sec-WebSocket-Key1": "1 2",
        "Sec-WebSocket-Key2": "3 4",
    }
    with victim.client() as client:
        assert client.upgrade(**old) == 400
    for more in ({"Transfer-Encoding": "chunked"}, {"Content-Length": "99999999"}):
        with victim.client() as client:
            assert client.upgrade(**old, **more) == 400
    with victim.client() as client:
        assert client.upgrade(Sec_WebSocket_Version="12") == 400


SAMPLE = '{"target":"here","rtt_ms":%s,"timestamp":1}'


@pytest.mark.parametrize(
    "argument",
    [
        "[" * 20_000,
        SAMPLE % ("1" * 5_000),
        SAMPLE % "NaN",
        SAMPLE % "-Infinity",
        SAMPLE % '1,"more":NaN',
        SAMPLE % "1e999",
        '{"target":"here","rtt_ms":1,"rtt_ms":2,"timestamp":1}',
        '{"target":"\\ud800","rtt_ms":1,"timestamp":1}',
        '{"target":"here\\u0000","rtt_ms":1,"timestamp":1}',
        '{"target":"here\x00","rtt_ms":1,"timestamp":1}',
    ],
)
def test_17_no_json_is_malformed(victim: Victim, argument: str) -> None:
    """What JSON does not have, or what no two readers read alike: E_MALFORMED, and nothing is stored."""
    with victim.agent(f"writer-{zlib.crc32(argument.encode())}") as client:
        before = victim.metric("pingmon_server_results_received_total")
        number = client.raw_event(f'["monitoring_data",{argument}]')
        assert client.answer(number, 3)["code"] == "E_MALFORMED"
        assert victim.metric("pingmon_server_results_received_total") == before
        assert json.dumps(client.ask("monitoring_data", "x"))
