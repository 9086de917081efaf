"""The table of docs/security.md: which test holds which abuse case. `python -m tests.abuse.table` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "security.md"
START, END = "<!-- cases: made by `python -m tests.abuse.table` -->", "<!-- end of cases -->"
_TEST = re.compile(r"^def (test_(?:case_)?((?:\d\d_)+)\w*)\(", re.MULTILINE)
CASES = {
    1: ("plain HTTP or `ws://` on the TLS port", "no answer, no redirect"),
    2: ("TLS 1.2 or older", "handshake refused"),
    3: ("2,000 connections that say nothing", "closed after 15 s; others notice nothing"),
    4: ("a request of one byte a second", "closed after 15 s for the whole of it"),
    5: ("a websocket that joins no namespace", "closed after 10 s"),
    6: ("a namespace without a handshake", "closed after 10 s"),
    7: ("long polling", "400, no session"),
    8: ("foreign Origin, forged proxy headers, rebound name", "refused before any handler"),
    9: ("a browser with cookies at `/agent`", "cookies count for nothing"),
    10: ("unknown namespaces", "refused, closed after three"),
    11: ("events named like the library's own", "`E_UNKNOWN_EVENT`, no handler runs"),
    12: ("broken events, arguments, packets", "`E_MALFORMED` or the end, never silence"),
    13: ("endless binary attachments", "refused at the first packet"),
    14: ("a message in endless fragments", "closed once 64 KiB are passed"),
    15: ("a frame that is too large", "closed unread"),
    16: ("a compression bomb", "compression is not agreed on"),
    17: ("JSON that is none, or too deep, or too large", "`E_MALFORMED`, nothing kept"),
    18: ("10,000 good events a second", "`E_RATE`, then the end; others notice nothing"),
    19: ("a client that never reads", "cut at 256 KiB; deciding takes no longer"),
    20: ("a storm of handshakes from one address", "`E_RATE`, then shut out for a while"),
    21: ("an answer without, twice, elsewhere, or too late", "`E_NONCE`"),
    22: ("a field altered after sealing or signing", "`E_SEAL`, `E_SIGNATURE`"),
    23: ("a recorded session played back", "refused, no row touched"),
    24: ("wrong passphrases", "one answer, one time for all of them"),
    25: ("a right one: expired, used up, revoked, elsewhere", "told which, no use spent"),
    26: ("100 race for 10 uses", "exactly 10 rows"),
    27: ("the same agent 50 times", "one row, one use"),
    28: ("a plain passphrase", "`E_LEGACY_DISABLED` with what to do"),
    29: ("a plain one under the name of a key", "`E_KEY_REQUIRED`"),
    30: ("a rogue server, a certificate of another CA", "learns nothing; measuring goes on"),
    31: ("somebody in the middle with our CA", "`E_CHANNEL` and an alarm"),
    32: ("a public key without its private half", "`E_SIGNATURE`"),
    33: ("keys and encodings that are none", "`E_MALFORMED`, `E_SEAL`"),
    34: ("versions stripped to force an older one", "the signature fails, the agent stops"),
    35: ("a new key under a known name", "waits, marked; the known one stays"),
    36: ("a known key from another address", "hold; within an IPv6 /64 none"),
    37: ("two machines with one key", "one stays, the other is held, alarm"),
    38: ("the row changed under the click", "409 and what is now"),
    39: ("hostile hostnames", "`E_HOSTNAME`; text everywhere if one got in"),
    40: ("a flood of fresh keys", "20 an hour per passphrase, 500 in all"),
    41: ("revoked in any state", "cut within 1 s, nothing stored afterwards"),
    42: ("an old backup restored", "who was shut out stays out"),
    43: ("data before approval or on hold", "`E_STATE`, the agent keeps it"),
    44: ("another agent's id, unknown targets", "ignored or refused; the rest is stored"),
    45: ("impossible values", "refused by code, never a crash"),
    46: ("impossible times", "refused or put right, counted, shown"),
    47: ("repeats, overlaps, disorder, gaps", "nothing twice; `E_SEQ_GAP` says what is expected"),
    48: ("an epoch used again by a restored machine", "no fresh sample is swallowed"),
    49: ("labels and a flood of ids into `/metrics`", "valid text, bounded series"),
    57: ("targets that are no single host", "refused at save and at the agent, with the reason"),
    58: ("the fleet aimed at a stranger", "refused with the arithmetic"),
    59: ("target lists forged, foreign, old, huge, odd", "the set before stays in force"),
}


def tests() -> dict[int, list[str]]:
    """Case number -> the tests that hold it, as file::function."""
    found: dict[int, list[str]] = {}
    for file in sorted(HERE.glob("test_*.py")):
        for name, numbers in _TEST.findall(file.read_text()):
            for number in numbers.strip("_").split("_"):
                found.setdefault(int(number), []).append(f"{file.name}::{name}")
    return found


def rows() -> str:
    """The table in Markdown."""
    held = tests()
    lines = ["| # | case | what happens | tests in `tests/abuse/` |", "|---|---|---|---|"]
    for number, (case, outcome) in CASES.items():
        names = "<br>".join(f"`{name}`" for name in held.get(number, ())) or "missing"
        lines.append(f"| {number} | {case} | {outcome} | {names} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the table put anew between its marks."""
    before, _, rest = text.partition(START)
    return f"{before}{START}\n{rows()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
