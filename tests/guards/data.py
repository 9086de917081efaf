"""Guards of what agents report and are called, as in enrolment.py."""

from __future__ import annotations

from .enrolment import Guard

NAMES = "tests/abuse/test_hostile_names.py"
GUARDS: list[Guard] = [
    ("pingmon/adapters/packet.py", "    json = _AsText", "    pass", "tests/abuse/test_fuzz.py what_was_found_once"),
    (
        "pingmon_agent/wire/contract.py",
        "value.isascii() and 0 < len(name)",
        "0 < len(name)",
        f"{NAMES} refused_on_the_wire",
    ),
    (
        "pingmon/cli/serve.py",
        r"""c if c.isprintable() else f"\\x{ord(c):02x}" for c""",
        "c for c",
        f"{NAMES} case_39_the_log",
    ),
    (
        "pingmon/cli/agents.py",
        'f"{shown(view.hostname)} {view.id}: {view.state}',
        'f"{view.hostname}',
        f"{NAMES} decision",
    ),
    ("pingmon/cli/plain.py", 'tame if output == "csv" else str', "str", f"{NAMES} command_line"),
    ("pingmon/services/spreadsheet.py", 'value[:1] in tuple("=+-@\\t\\r")', "False", f"{NAMES} json_and_csv"),
    ("pingmon_agent/pairs.py", 'and "#" not in text', "", f"{NAMES} the_agents_metrics"),
    ("pingmon_agent/pairs.py", '.encode(errors="replace").decode()', "", f"{NAMES} the_agents_metrics"),
    (
        "pingmon_agent/ring.py",
        "upto > offered.sent",
        "upto > offered.last_seq",
        "tests/abuse/test_data_twice.py case_48",
    ),
    ("pingmon/services/group.py", "if pair[0].seq > upto]", "]", "tests/abuse/test_data_twice.py case_47_the_same"),
    (
        "pingmon/services/ingest.py",
        "started_ms=now if wrong_clock else started_ms",
        "started_ms=started_ms",
        "tests/abuse/test_data.py case_46_a_clock",
    ),
    (
        "pingmon/services/ingest.py",
        "if len(known.target_ids) != len(r.samples):",
        "if False:",
        "tests/abuse/test_data.py case_44_an_unknown_set",
    ),
    ("pingmon/services/ingest.py", "if seqs[0] > expected or", "if", "tests/abuse/test_data.py case_47_out"),
]
