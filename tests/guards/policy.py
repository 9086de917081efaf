"""Guards of what may be aimed at, on both ends, and of TLS, decisions and pages; as in enrolment.py."""

from __future__ import annotations

from .enrolment import Guard

AIM, HOSTS, POLICY = "pingmon/services/aim.py", "pingmon_agent/wire/hosts.py", "pingmon_agent/policy.py"
REGISTRY, MIRROR, APPROVAL, REFUSALS, REVOKED = (
    f"pingmon/services/{name}.py" for name in ("registry", "mirror", "approval", "refusals", "revocations")
)
COLUMNS_PY, LINKS_PY, AGENT_TLS = (f"pingmon_agent/{name}.py" for name in ("columns", "links", "tls"))
ACCESS, API, TLS = "pingmon/adapters/web/access.py", "pingmon/adapters/web/api.py", "pingmon/tls.py"
# The files of tests.
AIM_TESTS, REGISTRY_TESTS, REFUSED = (f"tests/server/test_{name}.py" for name in ("aim", "registry", "refusals"))
RELOAD, PAIR = "tests/server/test_tls_reload.py", "tests/server/test_tls.py"
COLUMNS, LINKS, TRUSTED = (f"tests/agent/test_{name}.py" for name in ("columns", "links", "tls"))
API_TESTS, ROLES = "tests/web/test_api.py", "tests/web/test_access.py"
REVOCATIONS = "tests/server/test_revocations.py"
AT_SAVE, AT_AGENT = f"{AIM_TESTS} what_is_never", f"{COLUMNS} a_policy_file_decides"
BUDGET = f"{COLUMNS} the_budget_of_a_host"
FILE = f"{COLUMNS} could_rewrite"

# What is no host, and how addresses hide.
ADDRESSES: list[Guard] = [
    (HOSTS, "if address.is_multicast:", "if False:", AT_AGENT),
    (HOSTS, "address.is_unspecified or ", "", AT_AGENT),
    (HOSTS, "address == _LIMITED_BROADCAST or ", "", AT_AGENT),
    (HOSTS, " or _is_this_network(address)", "", AT_AGENT),
    (HOSTS, "if address.is_link_local:", "if False:", AT_AGENT),
    (HOSTS, "if address.is_loopback and not allow_loopback:", "if False:", AT_AGENT),
    (HOSTS, "address.ipv4_mapped or ", "", AT_AGENT),
    (HOSTS, " or address.sixtofour", "", AT_AGENT),
    (HOSTS, "address in _NAT64 or ", "", AT_AGENT),
    (HOSTS, " or (address in _COMPATIBLE and int(address) > 1)", "", AT_AGENT),
    (HOSTS, "len(value) <= most and ", "", f"{REFUSED} nonsense"),
    (HOSTS, " and _CODE.fullmatch(pair[1]) is not None", "", f"{REFUSED} nonsense"),
]

AT_THE_SERVER: list[Guard] = [
    (AIM, '        if why is not None:\n            raise Invalid(f"{text!r} {_REFUSALS[why]}")\n', "", AT_SAVE),
    (AIM, "last.isdigit() or ", "", AT_SAVE),
    (AIM, ' or last.startswith("0x")', "", AT_SAVE),
    (AIM, 'if last == "localhost" and', "if False and", AT_SAVE),
    (AIM, 'if getattr(address, "scope_id", None) is not None:', "if False:", f"{REGISTRY_TESTS} no_address"),
    (AIM, "if claimed == observed or", "if True or", f"{AIM_TESTS} claiming_an_address"),
    (AIM, "why = why_no_target(claimed, self._settings.allow_loopback)", "why = None",
     f"{AIM_TESTS} claiming_an_address"),
    (AIM, "return ip.is_global and", "return False and", f"{AIM_TESTS} your_own_are_not"),
    (AIM, 'return "." in address and', "return False and", f"{AIM_TESTS} your_own_are_not"),
    (AIM, "return str(parse(address))", "return address", f"{AIM_TESTS} ten_packets"),
    (AIM, "if load.agents > settings.foreign_agents:", "if False:", f"{AIM_TESTS} twenty_agents"),
    (AIM, "elif load.rate > settings.foreign_packets_per_s * _ROUNDING:", "elif False:",
     f"{AIM_TESTS} ten_packets"),
    (AIM, "if count > settings.agent_targets:", "if False:", f"{AIM_TESTS} documented_use"),
    (AIM, "if load.rate > settings.agent_packets_per_s * _ROUNDING:", "if False:",
     f"{AIM_TESTS} documented_use"),
    (AIM, " or len(load.aims) > len(old.aims)", "", "tests/server/test_budgets.py more_but_slower"),
    (REGISTRY, "wanted = rules.Wanted(name, address, probe).checked(self.rules)",
     "wanted = rules.Wanted(name, address, probe)", AT_SAVE),
    (REGISTRY, "probe,\n        ).checked(self.rules)", "probe,\n        )", AT_SAVE),
    (REGISTRY, "rules.Wanted(*item).checked(self.rules)", "rules.Wanted(*item)", AT_SAVE),
    ("pingmon/services/targets.py", "MEASURING = (State.APPROVED, State.HOLD)", "MEASURING = (State.APPROVED,)",
     "tests/server/test_budgets.py a_hold_and_its_release"),
    ("pingmon/app.py", "    application.services.registry.check_load()\n", "",
     "tests/abuse/test_targets.py case_58_the_owner"),
    (APPROVAL, "return wanted and self.rules.why_not_in_mesh(row.ip_address, row.observed_ip) is None",
     "return wanted", f"{AIM_TESTS} claiming_an_address"),
    (REFUSALS, "usable = type(count) is int and len(pairs) <= count <= MAX_TARGETS", "usable = True",
     f"{REFUSED} the_count_may"),
]  # fmt: skip

# One place judges what every decision leads to; each way there has a test of its own.
JUDGED = "self.rules.check_growth(before, targets.renew_sets(tx, self._clock.wall_ms()))"
UNJUDGED = "targets.renew_sets(tx, self._clock.wall_ms())"
WAYS = ("one_more_target", "a_whole_list", "another_address_or_interval", "one_more_agent", "that_was_rejected",
        "vouched_for", "a_hold_and_its_release")  # fmt: skip
BUDGETS: list[Guard] = [(MIRROR, JUDGED, UNJUDGED, f"tests/server/test_budgets.py {way}") for way in WAYS]

AT_THE_AGENT: list[Guard] = [
    (POLICY, "if any(ip in network for network in self.deny):", "if False:", AT_AGENT),
    (POLICY, "if self.allow and not any(", "if False and not any(", AT_AGENT),
    (POLICY, "if probe.size > self.max_size:", "if False:", BUDGET),
    (POLICY, "if period_s * _ROUNDING < self.min_interval_s:", "if False:", BUDGET),
    (POLICY, "if count > self.max_targets:", "if False:", BUDGET),
    (POLICY, "if rate > self.max_packets_per_s * _ROUNDING", "if False", BUDGET),
    (POLICY, "            if target.id in refused:\n                continue\n", "",
     f"{COLUMNS} costs_nothing"),
    (POLICY, "if why is None and str(parse(address)) in self._broadcasts", "if False",
     f"{COLUMNS} broadcast_addresses_of_this_host"),
    (POLICY, "if not file and not path.exists():", "if not path.exists():",
     f"{COLUMNS} no_toml_or_not_there"),
    (POLICY, "status.st_uid == uid != 0 or ", "", FILE),
    (POLICY, " or status.st_uid not in (0, uid)", "", FILE),
    (POLICY, "status.st_mode & 0o022 and", "False and", FILE),
    (POLICY, "            _check_owner(path.parent, path.parent.stat(), uid)\n", "", FILE),
    (POLICY, "        if key not in known:\n", "        if False:\n", f"{COLUMNS} broken_policy"),
    (COLUMNS_PY, "(address and self._judge.refuses(address))", "None",
     f"{COLUMNS} host_refuses_is_not_sent"),
    (COLUMNS_PY, "self._verdicts.get(target.id) or ", "", f"{COLUMNS} of_a_set_is_over_budget"),
    (LINKS_PY, "if _BROADCAST in attributes:", "if False:", f"{LINKS} every_prefix"),
    (LINKS_PY, "if _LOCAL in attributes and prefix < 31:", "if False:",
     f"{LINKS} every_prefix"),
    ("pingmon_agent/agent.py", "config.probe.allow_loopback), broadcasts)", "config.probe.allow_loopback))",
     "tests/abuse/test_targets.py case_57_the_broadcast"),
]  # fmt: skip

TRUST: list[Guard] = [
    (TLS, "            self.failures += 1\n",
     "            self.failures += 1\n            self._current = self.context\n", f"{RELOAD} a_bad_file"),
    (TLS, " or seen != before", "", f"{RELOAD} left_alone"),
    (TLS, "(seen == self._tried or", "(", f"{RELOAD} a_bad_file"),
    (TLS, "        self.context.minimum_version = VERSIONS[minimum]\n", "", f"{RELOAD} lowest_version"),
    (TLS, "if leaf.not_valid_after_utc <= datetime.now(UTC):", "if False:", f"{PAIR} has_expired"),
    (TLS, "if ours != leaf.public_key()", "if False and ours != leaf.public_key()", f"{PAIR} foreign_key"),
    (TLS, "if days >= WARN_DAYS:", "if True:", f"{RELOAD} two_weeks"),
    (TLS, "        if self.trouble is not None:\n            return self.trouble\n", "",
     f"{RELOAD} a_bad_file"),
    (AGENT_TLS, "    context.minimum_version = VERSIONS[minimum]\n", "",
     f"{TRUSTED} without_tls_1_3"),
    (AGENT_TLS, "        context.load_verify_locations(cafile=ca_file)\n",
     "        context.load_verify_locations(cafile=ca_file)\n        context.load_default_certs()\n",
     f"{TRUSTED} environment_cannot"),
    (AGENT_TLS, "context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)",
     "context = ssl.create_default_context(cafile=ca_file)", f"{TRUSTED} environment_cannot"),
    (AGENT_TLS, "    context.minimum_version",
     "    context.check_hostname = False\n    context.minimum_version", f"{TRUSTED} for_another_name"),
]  # fmt: skip

DECISIONS: list[Guard] = [
    (APPROVAL, "        self._note(view, REVOKING[state], now)\n", "", f"{REVOCATIONS} does_not_let"),
    (APPROVAL, "        self._note(view, DELETED, now)\n", "", f"{REVOCATIONS} does_not_let"),
    (APPROVAL, "(view.decided_at_ms or 0) < entry.at_ms and", "", f"{REVOCATIONS} later_approval"),
    (REVOKED, "except (ValueError, TypeError):", "except KeyError:", f"{REVOCATIONS} damaged_line"),
    (APPROVAL, "        if rival is not None:\n", "        if False:\n", f"{REGISTRY_TESTS} second_agent"),
    (APPROVAL, "if old.hostname != new.hostname:", "if False:", f"{API_TESTS} of_its_own_name"),
    (API, 'expected = Expected(sent.get("expected_key_fpr"))', "expected = Expected()", f"{API_TESTS} rekeying_keeps"),
    (APPROVAL, "            expected.check(source.key_fingerprint, source.revision, source.hostname)\n", "",
     f"{API_TESTS} rekeying_keeps"),
    (API, 'sent.get("expected_key_fpr"), sent.get("expected_revision")', 'None, sent.get("expected_revision")',
     f"{API_TESTS} approving_what_has"),
    (API, 'sent.get("expected_key_fpr"), sent.get("expected_revision")', 'sent.get("expected_key_fpr"), None',
     f"{API_TESTS} approving_what_has"),
    (API, "return view.state is not State.PENDING or", "return True or", f"{ROLES} does_not_learn"),
    (API, "if name not in DETAILS}", "}", f"{ROLES} does_not_learn"),
    (API, "        raise NotFound(NO_AGENT.format(ref))\n", "        pass\n", f"{ROLES} does_not_learn"),
]  # fmt: skip

PAGES: list[Guard] = [
    (ACCESS, "    if endpoint not in PERMISSIONS:\n        abort(404)\n    needed = PERMISSIONS[endpoint]\n",
     "    needed = PERMISSIONS.get(endpoint)\n", f"{ROLES} without_a_line"),
    (ACCESS, "    if mine is None:\n        abort(401)\n", "    if mine is None:\n        return None\n",
     f"{ROLES} without_sign_in"),
    (ACCESS, "if mine < needed:", "if False:", f"{ROLES} each_role"),
    (ACCESS, '"api.evidence_of_agent": Role.ADMIN', '"api.evidence_of_agent": Role.OPERATOR', f"{ROLES} each_role"),
    (ACCESS, "    _check_host()\n    if", "    if", f"{ROLES} a_name_that_is_not_ours"),
    (ACCESS, '== "cross-site":', '== "":', "tests/web/test_requests.py from_another_site"),
]  # fmt: skip

GUARDS: list[Guard] = [*ADDRESSES, *AT_THE_SERVER, *BUDGETS, *AT_THE_AGENT, *TRUST, *DECISIONS, *PAGES]
