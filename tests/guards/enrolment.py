"""Guards of enrolment: (file, the guard, what stands there without it, the test that must fail: file and -k)."""

from __future__ import annotations

Guard = tuple[str, str, str, str]
GUARDS: list[Guard] = [
    (
        "pingmon/services/challenge.py",
        "sent, visit.offer = visit.offer, None",
        "sent = visit.offer",
        "tests/abuse/test_enrolment.py case_21_an_answer_without",
    ),
    (
        "pingmon/services/challenge.py",
        "self._clock.monotonic() - visit.offered_at > CHALLENGE_TTL_S",
        "False",
        "tests/abuse/test_enrolment.py case_21",
    ),
    (
        "pingmon/services/challenge.py",
        "if not self._leaf.is_ours(said.tls):",
        "if False:",
        "tests/abuse/test_enrolment.py case_31",
    ),
    (
        "pingmon/services/enrolment.py",
        "        check_login(proof, view.public_key)\n",
        "",
        "tests/abuse/test_enrolment.py case_32 or case_22",
    ),
    (
        "pingmon_agent/wire/seal.py",
        'or not _genuine(public, signature, b"pingmon/1/pop" + th1)',
        "",
        "tests/wire/test_seal.py 16_17",
    ),
    (
        "pingmon/services/enrolment.py",
        "if hello.hostname in self._registry.snapshot.known_hostnames:",
        "if False:",
        "tests/abuse/test_enrolment.py case_29",
    ),
    (
        "pingmon/services/enrolment.py",
        "if networks and not addresses.inside(observed_ip, networks):",
        "if False:",
        "tests/abuse/test_enrolment.py case_25",
    ),
    (
        "pingmon/services/enrolment.py",
        "or recent >= MAX_PENDING_PER_HOUR:",
        ":",
        "tests/abuse/test_enrolment.py case_40_a_flood",
    ),
    (
        "pingmon/services/enrolment.py",
        "if until <= self._clock.wall_ms():",
        "if False:",
        "tests/abuse/test_enrolment.py case_28_plain_passphrases_end",
    ),
    (
        "pingmon/services/enrolment.py",
        "and not _may_come_from(row, hello.ip_address, observed_ip)",
        "and False",
        "tests/abuse/test_enrolment.py case_36",
    ),
    (
        "pingmon/services/addresses.py",
        "PRIVACY_BITS = 64",
        "PRIVACY_BITS = 128",
        "tests/abuse/test_enrolment.py case_36_another",
    ),
    (
        "pingmon/services/enrolment.py",
        "(row.observed_ignored or addresses.inside(observed, entries))",
        "True",
        "tests/abuse/test_enrolment.py case_36_the_observed",
    ),
    (
        "pingmon/adapters/agent_socket.py",
        "return bool(alive)",
        "return False",
        "tests/abuse/test_enrolment.py case_37_two",
    ),
    (
        "pingmon/adapters/agent_socket.py",
        "return bool(alive)",
        "return True",
        "tests/abuse/test_enrolment.py case_37_a_dead",
    ),
    (
        "pingmon/adapters/agent_socket.py",
        "        if session.held:\n",
        "        if False:\n",
        "tests/abuse/test_enrolment.py case_37_two",
    ),
    (
        "pingmon/services/approval.py",
        "            expected.check(row.key_fingerprint, row.revision, row.hostname)\n",
        "",
        "tests/abuse/test_enrolment.py case_38",
    ),
    (
        "pingmon/services/approval.py",
        "            expected.check(view.key_fpr, view.revision, view.hostname)\n",
        "",
        "tests/abuse/test_enrolment.py case_38",
    ),
    (
        "pingmon/services/issuing.py",
        "            self._registry.refresh()\n",
        "",
        "tests/contract/test_foreign_rules.py moment_ago",
    ),
    ("pingmon/services/issuing.py", "match[3] != self.pin", "False", "tests/abuse/test_enrolment.py case_24_wrong"),
    (
        "pingmon/services/issuing.py",
        " and row.legacy is (parts.kind == KIND_PLAIN)",
        "",
        "tests/abuse/test_enrolment.py case_24_wrong or case_28",
    ),
    (
        "pingmon_agent/door.py",
        "        seal.check_reply(self._challenge.identity, self._transcripts, body)\n",
        "",
        "tests/abuse/test_rogue.py unsigned_approval",
    ),
    (
        "pingmon_agent/door.py",
        '        if self._challenge is None:\n            raise UntrustedError("it answers',
        '        if False:\n            raise UntrustedError("it answers',
        "tests/abuse/test_rogue.py plain_text",
    ),
    (
        "pingmon_agent/wire/seal.py",
        "if pin(identity) not in pins:",
        "if False:",
        "tests/abuse/test_rogue.py another_identity",
    ),
    (
        "pingmon_agent/wire/seal.py",
        "if not _genuine(identity, signature, t0) or type(time_ms) is not int:",
        "if False:",
        "tests/abuse/test_rogue.py case_34",
    ),
    (
        "pingmon_agent/uplink.py",
        "            self._door.check_targets(body)\n",
        "            pass\n",
        "tests/abuse/test_rogue.py target_set_that_is_not_signed",
    ),
    (
        "pingmon_agent/delivery.py",
        "floor = max(self._floor_rev, self._promised_rev)",
        "floor = self._floor_rev",
        "tests/abuse/test_rogue.py target_set_that_is_not_signed",
    ),
    (
        "pingmon_agent/door.py",
        "            self.keep.approved()\n",
        "            pass\n",
        "tests/abuse/test_rogue.py passphrase_goes",
    ),
    (
        "pingmon_agent/wire/keyfile.py",
        "(word, fingerprint) != (_WORD, identity.fingerprint)",
        "word != _WORD",
        "tests/abuse/test_rogue.py damaged",
    ),
    (
        "pingmon_agent/wire/keyfile.py",
        "with suppress(FileExistsError):\n            os.link(beside, path)",
        "os.replace(beside, path); beside.touch()",
        "tests/abuse/test_rogue.py two_first",
    ),
    (
        "pingmon/services/fleet.py",
        "view.state is State.HOLD and view.hold_reason == MOVED",
        "view.state is State.HOLD",
        "tests/server/test_fleet.py hold_that_somebody",
    ),
    (
        "pingmon/cli/preapproval.py",
        "if item.get(key, right) != right:",
        "if False:",
        "tests/server/test_fleet.py each_mistake",
    ),
]
