"""From targets to probes and back: columns, the order of sending, what is due, what this host refuses."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from pingmon_agent.columns import Columns
from pingmon_agent.plan import STANDARD, Way
from pingmon_agent.policy import Policy, PolicyError, policy_of
from pingmon_agent.wire.contract import Outcome, Probe, Target, TargetSet

ADDRESSES = {"both": {0: "192.0.2.9", 4: "192.0.2.9", 6: "2001:db8::9"}, "v4": {0: "192.0.2.4", 4: "192.0.2.4"}}


def columns(*probes: Probe, name: str = "v4", interval_s: float = 5.0, policy: Policy | None = None) -> Columns:
    targets = tuple(Target(id=n + 1, name=f"t{n}", address=name, probe=probe) for n, probe in enumerate(probes))
    message = TargetSet(agent_id="a", revision=1, issued_at=0, interval_s=interval_s, targets=targets)
    return Columns(message, policy or Policy())


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


def test_what_the_host_refuses_is_not_sent() -> None:
    """Refused columns have their own outcome, also in the plain case, and the others are measured."""
    policy = Policy(deny=policy_of("").deny)
    made = Columns(
        TargetSet(
            agent_id="a",
            revision=1,
            issued_at=0,
            interval_s=5,
            targets=(
                Target(id=1, name="m", address="224.0.0.1"),
                Target(id=2, name="v", address="192.0.2.4"),
                Target(id=3, name="x", address="nowhere"),
            ),
        ),
        policy,
    )
    probing = made.probing(lambda name, _family: None if name == "nowhere" else name, 0)

    assert list(probing.addresses) == ["192.0.2.4"]
    assert probing.fill(array("i", [5])).tolist() == [Outcome.REFUSED_BY_POLICY, 5, Outcome.UNRESOLVED]
    assert (made.refused, made.unresolved) == (1, 1)


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
        ("::", "E_POLICY_NOT_A_HOST"),
        ("255.255.255.255", "E_POLICY_NOT_A_HOST"),
    ],
)
def test_a_policy_file_decides(tmp_path: Path, address: str, code: str | None) -> None:
    """Deny wins over allow, what is no host is refused whatever the file says."""
    file = tmp_path / "policy.toml"
    file.write_text('allow = ["192.0.2.0/24", "198.51.100.0/24", "224.0.0.0/4"]\ndeny = ["198.51.100.0/25"]\n')

    assert policy_of(str(file)).refuses(address) == code


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("forbid = []\n", "forbid is not a rule; there are allow, deny"),
        ('deny = "192.0.2.0/24"\n', 'deny must be a list of networks, such as ["192.0.2.0/24"]'),
        ("deny = [5]\n", 'deny must be a list of networks, such as ["192.0.2.0/24"]'),
        ("deny = [\n", "is not valid TOML"),
        ('allow = ["192.0.2.1/24"]\n', "has host bits set; write networks such as"),
    ],
)
def test_a_broken_policy_never_means_everything_goes(tmp_path: Path, text: str, sentence: str) -> None:
    """A file that cannot be understood is refused with its sentence."""
    file = tmp_path / "policy.toml"
    file.write_text(text)

    with pytest.raises(PolicyError) as caught:
        policy_of(str(file))
    assert sentence in str(caught.value)
    with pytest.raises(PolicyError, match="cannot be read"):
        policy_of(str(tmp_path / "none.toml"))
