"""Agents (approval.py) and targets: the one place that decides. Each decision is one transaction with its audit line.

Must not know: sockets, Flask, samples.
"""

from __future__ import annotations

from collections.abc import Iterable

from pingmon_agent.wire.contract import Probe

from . import targets as rules
from .errors import Conflict
from .fleet import FleetApprovals
from .probes import spell_probe
from .views import TargetView

STANDARD = Probe()


class Registry(FleetApprovals):
    """All decisions, on top of the copy in memory that everybody reads."""

    # -- decisions about targets --

    def add_target(self, name: str, address: str, actor: str, probe: Probe = STANDARD) -> TargetView:
        """Raises Invalid, Conflict."""
        wanted = rules.Wanted(name, address, probe).checked(self.rules)
        now = self._clock.wall_ms()
        with self.change() as tx:
            row = rules.add(tx, wanted, now)
            tx.audit(now, actor, "targets.add", wanted.name, f"{wanted.address} {row.probe}")
        return self.snapshot.targets[row.id or 0]

    def change_target(
        self, ref: str, actor: str, name: str | None = None, address: str | None = None, probe: Probe | None = None
    ) -> TargetView:
        """Another name, address or way to probe; id and history stay. Raises NotFound, Invalid, Conflict.

        An agent's own target takes another way to probe, but keeps its name and address.
        """
        view = self.target(ref) if (name, address) == (None, None) else self._own_target(ref)
        before = rules.Wanted(view.name, view.address, view.probe)
        wanted = rules.Wanted(
            view.name if name is None else name,
            view.address if address is None else address,
            view.probe if probe is None else probe,
        ).checked(self.rules)
        if any(t.name == wanted.name and t.id != view.id for t in self.targets()):
            raise Conflict(f"there is a target named {wanted.name!r} already; choose another name")
        now = self._clock.wall_ms()
        with self.change() as tx:
            rules.rewrite(tx, view.id, wanted)
            rules.renew_sets(tx, now, {view.id} if wanted != before else ())
            tx.audit(now, actor, "targets.change", wanted.name, f"{_spell(before)} -> {_spell(wanted)}")
        return self.snapshot.targets[view.id]

    def remove_target(self, ref: str, actor: str) -> TargetView:
        """Raises NotFound, Conflict."""
        view = self._own_target(ref)
        now = self._clock.wall_ms()
        with self.change() as tx:
            row = tx.target(view.id)
            if row is not None:
                row.removed_ms = now
            tx.audit(now, actor, "targets.remove", view.name, view.address)
        return view

    def put_targets(self, wanted: Iterable[tuple[str, str] | tuple[str, str, Probe]], actor: str) -> list[TargetView]:
        """Make the whole list (mesh targets aside) equal to `wanted`, (name, address) or (name, address, probe) each.

        The same list again changes nothing.
        """
        clean = [rules.Wanted(*item).checked(self.rules) for item in wanted]
        self.refresh()
        own = [(t.name, t.address, t.probe) for t in self.targets() if t.agent_no is None]
        mesh = {(t.name, t.address, t.probe) for t in self.targets() if t.agent_no is not None}
        if own == [item for item in clean if item not in mesh]:
            return self.targets()
        now = self._clock.wall_ms()
        with self.change() as tx:
            rules.renew_sets(tx, now, rules.replace_all(tx, clean, now))
            tx.audit(now, actor, "targets.put", f"{len(clean)} targets")
        return self.targets()

    def _own_target(self, ref: str) -> TargetView:
        view = self.target(ref)
        if view.agent_no is not None:
            raise Conflict(f"{view.name} is a target because the agent is approved; delete or reject the agent instead")
        return view


def _spell(wanted: rules.Wanted) -> str:
    return " ".join([wanted.name, wanted.address, *spell_probe(wanted.probe)])
