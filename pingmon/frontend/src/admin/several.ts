// Several agents at once: which are ticked, and one decision about all of them, each checked by the server on its own.
import { api } from "../api";
import type { AgentRow } from "../types";
import { h } from "../ui/dom";
import { confirm, notify, report } from "../ui/feedback";
import { plural } from "../ui/time";
import { approve } from "./evidence";

/** Ticks by agent id; they outlive a redraw. */
export class Several {
  private readonly ticked = new Set<string>();

  constructor(private readonly changed: () => void) {}

  tick(agent: AgentRow): HTMLElement {
    const box = h("input", { type: "checkbox", "data-verb": "tick", "aria-label": `Select ${agent.hostname}`, checked: this.ticked.has(agent.id) });
    box.addEventListener("change", () => {
      if (box.checked) this.ticked.add(agent.id);
      else this.ticked.delete(agent.id);
      this.changed();
    });
    return box;
  }

  /** The bar above a list of which several may be ticked; `after` reloads it. */
  bar(agents: AgentRow[], after: () => Promise<void>): HTMLElement {
    const chosen = agents.filter((agent) => this.ticked.has(agent.id));
    const all = chosen.length === agents.length;
    const button = (verb: string, label: string, press: () => void, off = false): HTMLElement =>
      h("button", { class: "button small", type: "button", "data-verb": verb, disabled: off, on: { click: press } }, label);
    const select = (): void => {
      this.ticked.clear();
      if (!all) for (const agent of agents) this.ticked.add(agent.id);
      this.changed();
    };
    return h(
      "div",
      { class: "actions several", "data-row": "several", role: "group", "aria-label": "Several agents at once" },
      button("all", all ? "Select none" : "Select all", select),
      button("approve-all", `Approve ${chosen.length}`, () => void this.approve(chosen, after), !chosen.length),
      button("reject-all", `Reject ${chosen.length}`, () => void this.reject(chosen, after), !chosen.length),
    );
  }

  private async approve(chosen: AgentRow[], after: () => Promise<void>): Promise<void> {
    const keys = chosen.map((agent) => `${agent.hostname}  ${agent.fingerprint ?? "no key"}`).join("\n");
    const text = "Approve them only if each key is the one that pingmon-agent identity prints on its host:";
    if (await confirm({ title: `Approve ${plural(chosen.length, "agent")}?`, text, detail: keys, action: "The keys agree: approve" }))
      await this.each(chosen, "approved", approve, after);
  }

  private async reject(chosen: AgentRow[], after: () => Promise<void>): Promise<void> {
    const text = "They are sent away and stay on the list as rejected. You can approve each of them later.";
    const names = chosen.map((agent) => agent.hostname).join("\n");
    if (await confirm({ title: `Reject ${plural(chosen.length, "agent")}?`, text, detail: names, action: "Reject", danger: true }))
      await this.each(chosen, "rejected", (agent) => api("POST", `/api/v1/agents/${encodeURIComponent(agent.id)}/reject`, {}), after);
  }

  private async each(chosen: AgentRow[], word: string, decide: (agent: AgentRow) => Promise<unknown>, after: () => Promise<void>): Promise<void> {
    let done = 0;
    for (const agent of chosen) {
      try {
        await decide(agent);
        this.ticked.delete(agent.id);
        done += 1;
      } catch (error) {
        report(error);
      }
    }
    if (done) notify(`${plural(done, "agent is", "agents are")} ${word}.`);
    await after();
  }
}
