"""From targets to probes and back: columns, the order of sending, what is due, what this host refuses."""

from __future__ import annotations

import os
import tomllib
from array import array
from pathlib import Path

import pytest

from pingmon_agent.columns import Columns
from pingmon_agent.plan import STANDARD, Way
from pingmon_agent.policy import Judge, Policy, PolicyError, policy_of, rules_of
from pingmon_agent.wire.contract import Outcome, Probe, Target, TargetSet

ADDRESSES = {"both": {0: "192.0.2.9", 4: "192.0.2.9", 6: "2001:db8::9"}, "v4": {0: "192.0.2.4", 4: "192.0.2.4"}}


def columns(*probes: Probe, name: str = "v4", interval_s: float = 5.0, policy: Policy | None = None) -> Columns:
    targets = tuple(Target(id=n + 1, name=f"t{n}", address=name, probe=probe) for n, probe in enumerate(probes))
    message = TargetSet(agent_id="a", revision=1, issued_at=0, interval_s=interval_s, targets=targets)
    return Columns(message, Judge(policy or Policy()))


def address_of(name: str, family: int) -> str | None:
    return ADDRESSES.get(name, {}).get(family)


def test_standard_probes_need_no_rearranging() -> None:
    """The plain case costs nothing: one column per target, in order, all the same way."""
    probing = columns(Probe(), Probe()).probing(address_of, 0)
    samples = array("i", [1, 2])

    assert (list(probing.addresses), probing.ways) == (["192.0.2.4"] * 2, None)
    assert probing.fill(samples) is samples


def test_shots_of_a_target_are_apart_in_time_and_together_in_the_report() -> None:
    """First all first probes are sent, then the second ones; in the report a target's columns are side by side."""
    probing = columns(Probe(count=2), Probe(), Probe(count=3, dscp=46)).probing(address_of, 0)
    way = Way(dscp=46)

    assert probing.ways == [STANDARD, STANDARD, way, STANDARD, way, way]
    assert probing.fill(array("i", [10, 20, 30, 11, 31, 32])).tolist() == [10, 11, 20, 30, 31, 32]


def test_both_families_are_two_columns() -> None:
    """First IPv4, then IPv6; a family the name does not have is unresolved, the other goes on."""
    probing = columns(Probe(family=46), name="both").probing(address_of, 0)
    lonely = columns(Probe(family=46, count=2), name="v4").probing(address_of, 0)

    assert list(probing.addresses) == ["192.0.2.9", "2001:db8::9"]
    assert list(lonely.addresses) == ["192.0.2.4"] * 2
    assert lonely.fill(array("i", [7, 8])).tolist() == [7, 8, Outcome.UNRESOLVED, Outcome.UNRESOLVED]


def test_a_slower_target_is_left_out_of_most_rounds() -> None:
    """Every third round at 15 s of 5; the first round has everything, and slow ones do not all fall together."""
    made = columns(Probe(), *[Probe(interval_s=15)] * 3)
    due = [len(made.probing(address_of, turn).addresses) for turn in range(7)]

    assert made.changing
    assert due == [4, 2, 2, 2, 2, 2, 2]
    probing = made.probing(address_of, 1)
    assert sorted(probing.fill(array("i", [1] * 2)).tolist()) == [Outcome.NOT_PROBED, Outcome.NOT_PROBED, 1, 1]


def test_a_timeout_of_ones_own() -> None:
    """A reply that came, but later than this target allows, is a timeout."""
    probing = columns(Probe(timeout_ms=10), Probe()).probing(address_of, 0)

    assert probing.fill(array("i", [10_001, 10_001])).tolist() == [Outcome.TIMEOUT, 10_001]
    assert probing.fill(array("i", [10_000, -3])).tolist() == [10_000, -3]


NAMES = {"moved": "169.254.169.254", "v4": "192.0.2.4"}


def test_what_the_host_refuses_is_not_sent() -> None:
    """Refused columns have their own outcome, also in the plain case, and the others are measured."""
    rows = {"m": "224.0.0.1", "v": "v4", "x": "nowhere", "n": "moved"}
    targets = tuple(Target(id=i, name=name, address=address) for i, (name, address) in enumerate(rows.items(), 1))
    made = Columns(TargetSet(agent_id="a", revision=1, issued_at=0, interval_s=5, targets=targets), Judge(Policy()))
    probing = made.probing(lambda name, _family: NAMES.get(name), 0)

    assert list(probing.addresses) == ["192.0.2.4"]
    refused = Outcome.REFUSED_BY_POLICY
    assert probing.fill(array("i", [5])).tolist() == [refused, 5, Outcome.UNRESOLVED, refused]
    assert (made.refused, made.unresolved) == (2, 1)
    assert made.refused_names == {4: "E_POLICY_LINK_LOCAL"}


def test_a_refused_name_is_remembered_while_it_is_not_due() -> None:
    """A name probed every third round stays refused in the two between, and is free again once it has moved back."""
    stands_for = {"v4": "127.0.0.1"}
    made = columns(Probe(), Probe(interval_s=15))
    seen = []
    for turn in range(4):
        made.probing(lambda name, _family: stands_for[name], turn)
        seen.append(sorted(made.refused_names))
    stands_for["v4"] = "192.0.2.4"
    for turn in range(4, 7):
        made.probing(lambda name, _family: stands_for[name], turn)

    assert seen == [[1, 2]] * 4
    assert made.refused_names == {}


ALLOWING = 'allow = ["192.0.2.0/24", "198.51.100.0/24", "224.0.0.0/4", "169.254.0.0/16"]\ndeny = ["198.51.100.0/25"]\n'


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("192.0.2.1", None),
        ("198.51.100.1", "E_POLICY_DENIED"),
        ("203.0.113.1", "E_POLICY_NOT_ALLOWED"),
        ("2001:db8::1", "E_POLICY_NOT_ALLOWED"),
        ("224.0.0.1", "E_POLICY_MULTICAST"),
        ("::ffff:224.0.0.1", "E_POLICY_MULTICAST"),
        ("ff02::1", "E_POLICY_MULTICAST"),
        ("0.0.0.0", "E_POLICY_NOT_A_HOST"),
        ("0.1.2.3", "E_POLICY_NOT_A_HOST"),
        ("::", "E_POLICY_NOT_A_HOST"),
        ("255.255.255.255", "E_POLICY_NOT_A_HOST"),
        ("169.254.169.254", "E_POLICY_LINK_LOCAL"),
        ("fe80::1%lo", "E_POLICY_LINK_LOCAL"),
        ("127.0.0.1", "E_POLICY_LOOPBACK"),
        ("::1", "E_POLICY_LOOPBACK"),
        ("64:ff9b::7f00:1", "E_POLICY_LOOPBACK"),
        ("2002:7f00:1::", "E_POLICY_LOOPBACK"),
        ("::127.0.0.1", "E_POLICY_LOOPBACK"),
        ("::ffff:198.51.100.1", "E_POLICY_DENIED"),
    ],
)
def test_a_policy_file_decides(address: str, code: str | None) -> None:
    """Deny wins over allow, what is no host is refused whatever the file says, and IPv6 hides no IPv4 address."""
    assert rules_of(Path("p"), tomllib.loads(ALLOWING)).refuses(address) == code


def test_loopback_is_the_hosts_own_choice() -> None:
    """A setting of the host opens loopback, and nothing else."""
    policy = Policy(allow_loopback=True)

    assert [policy.refuses(a) for a in ("127.0.0.1", "::1")] == [None, None]
    assert policy.refuses("169.254.169.254") == "E_POLICY_LINK_LOCAL"


def a_list(interval_s: float, *probes: Probe) -> TargetSet:
    targets = tuple(Target(id=i, name=f"t{i}", address="192.0.2.4", probe=probe) for i, probe in enumerate(probes))
    return TargetSet(agent_id="a", revision=1, issued_at=0, interval_s=interval_s, targets=targets)


@pytest.mark.parametrize(
    ("policy", "message", "refused"),
    [
        (Policy(), a_list(1.0, *[Probe()] * 1000), {}),
        (Policy(max_packets_per_s=2), a_list(5.0, *[Probe(count=5)] * 3), {2: "E_POLICY_RATE"}),
        (Policy(max_packets_per_s=2), a_list(5.0, *[Probe(count=5, interval_s=10)] * 4), {}),
        (Policy(max_packets_per_s=2), a_list(1.0, Probe(count=3), Probe()), {0: "E_POLICY_RATE"}),
        (Policy(max_packets_per_s=2000, max_targets=10_000), a_list(5.0, *[Probe()] * 10_000), {}),
        (Policy(max_targets=1), a_list(5.0, Probe(), Probe()), {1: "E_POLICY_TARGETS"}),
        (Policy(max_size=100), a_list(5.0, Probe(size=101), Probe(size=100)), {0: "E_POLICY_SIZE"}),
        (Policy(min_interval_s=10), a_list(5.0, Probe(), Probe(interval_s=10)), {0: "E_POLICY_INTERVAL"}),
        (Policy(), a_list(0.1, Probe()), {0: "E_POLICY_INTERVAL"}),
    ],
)
def test_the_budget_of_a_host(policy: Policy, message: TargetSet, refused: dict[int, str]) -> None:
    """What fits is pinged in the order of the list, what is refused costs nothing, and slow targets cost less."""
    assert Judge(policy).verdicts(message) == refused


def test_what_is_refused_costs_nothing() -> None:
    """A target that is never pinged takes no place of one that may be."""
    rows = ("224.0.0.1", "192.0.2.4", "192.0.2.5")
    targets = tuple(Target(id=i, name=f"t{i}", address=address) for i, address in enumerate(rows))
    message = TargetSet(agent_id="a", revision=1, issued_at=0, interval_s=5.0, targets=targets)

    assert Judge(Policy(max_targets=1)).verdicts(message) == {0: "E_POLICY_MULTICAST", 2: "E_POLICY_TARGETS"}


def test_what_of_a_set_is_over_budget_is_not_sent() -> None:
    """The verdicts of the set count in every round; the column says why it is empty."""
    made = Columns(a_list(5.0, Probe(), Probe()), Judge(Policy(max_targets=1)))
    probing = made.probing(lambda name, _family: name, 0)

    assert list(probing.addresses) == ["192.0.2.4"]
    assert probing.fill(array("i", [5])).tolist() == [5, Outcome.REFUSED_BY_POLICY]


def test_the_broadcast_addresses_of_this_host_are_refused() -> None:
    """As the kernel tells them when a list comes, also behind a name."""
    judge = Judge(Policy(), lambda: {"192.0.2.255"})
    judge.verdicts(a_list(5.0))

    assert judge.refuses("192.0.2.255") == judge.refuses("::ffff:192.0.2.255") == "E_POLICY_BROADCAST"
    assert judge.refuses("192.0.2.254") is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("forbid = []\n", "forbid is not a rule; there are allow, deny, max_packets_per_s, max_size, max_targets, min"),
        ("allow_loopback = true\n", "allow_loopback is not a rule"),
        ('deny = "192.0.2.0/24"\n', 'deny must be a list of networks, such as ["192.0.2.0/24"]'),
        ("deny = [5]\n", 'deny must be a list of networks, such as ["192.0.2.0/24"]'),
        ('allow = ["192.0.2.1/24"]\n', "has host bits set; write networks such as"),
        ("max_targets = 1.5\n", "max_targets is 1.5; it must be a whole number between 0 and 1e+06"),
        ("max_packets_per_s = true\n", "max_packets_per_s is True; it must be a number between 0 and 1e+06"),
        ("min_interval_s = 0\n", "min_interval_s is 0; it must be a number between 0.1 and 3600"),
        ("max_size = 9000\n", "max_size is 9000; it must be a whole number between 56 and 1400"),
    ],
)
def test_a_broken_policy_never_means_everything_goes(text: str, sentence: str) -> None:
    """A file that cannot be understood is refused with its sentence."""
    with pytest.raises(PolicyError) as caught:
        rules_of(Path("p"), tomllib.loads(text))
    assert str(caught.value).startswith("p: ")
    assert sentence in str(caught.value)


def test_a_policy_file_that_is_no_toml_or_not_there(tmp_path: Path) -> None:
    """Named files must be there; the standard one need not."""
    with pytest.raises(PolicyError, match="cannot be read"):
        policy_of(str(tmp_path / "none.toml"))
    assert policy_of("") == Policy()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
def test_a_policy_file_that_the_agent_could_rewrite_guards_nothing(tmp_path: Path) -> None:
    """Not the agent's user, no other user, no group and nobody else may write it, or put another in its place."""
    file = tmp_path / "etc" / "policy.toml"
    file.parent.mkdir(mode=0o755)
    file.write_text("max_targets = 7\n")
    file.chmod(0o644)
    agent = 990
    assert policy_of(str(file), uid=agent).max_targets == 7

    def refusal() -> str:
        with pytest.raises(PolicyError) as caught:
            policy_of(str(file), uid=agent)
        return str(caught.value).replace(str(file), "FILE").replace(str(file.parent), "DIR")

    os.chown(file, agent, agent)
    assert refusal() == "FILE belongs to the user that the agent runs as, so it guards nothing; run `chown root: FILE`"
    os.chown(file, 991, 0)
    assert refusal() == "FILE belongs to user 991, so it guards nothing; run `chown root: FILE`"
    os.chown(file, 0, 0)
    for mode in (0o664, 0o646):
        file.chmod(mode)
        assert refusal() == "others than root may write FILE, so it guards nothing; run `chmod go-w FILE`"
    file.chmod(0o644)
    os.chown(file.parent, agent, agent)
    assert refusal() == "DIR belongs to the user that the agent runs as, so it guards nothing; run `chown root: DIR`"
    os.chown(file.parent, 0, 0)
    file.parent.chmod(0o777)
    assert refusal() == "others than root may write DIR, so it guards nothing; run `chmod go-w DIR`"
    file.parent.chmod(0o755)
    file.write_text("deny = [\n")
    assert "is not valid TOML" in refusal()
