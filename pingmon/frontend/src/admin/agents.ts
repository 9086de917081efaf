// The agents page: who waits for a decision first, then everybody else. Decisions are the server's; this only asks.
import { api } from "../api";
import type { AgentRow } from "../types";
import { h, must, type Child } from "../ui/dom";
import { confirm, notify, report } from "../ui/feedback";
import { dateTime, duration, plural, timeTag } from "../ui/time";
import { ask, fingerprint } from "./evidence";
import { can, poll, redraw, type Poller } from "./list";
import { Several } from "./several";

const STATE_WORDS: Record<AgentRow["state"], string> = {
  pending: "waiting for approval",
  approved: "approved",
  hold: "on hold",
  blacklisted: "rejected",
};
const HOLD_REASONS: Record<string, string> = {
  ip_changed: "it came from another address",
  operator: "an operator put it on hold",
  duplicate_identity: "two machines came with its key at once: one is a copy",
  rekey: "its key was changed",
};
const REJECT: Step = { verb: "reject", label: "Reject", css: "", ask: "It is sent away and stays on the list as rejected. You can approve it later." };

let poller: Poller;
let shown = "";
let listed: AgentRow[] = [];
const several = new Several(() => draw(listed));

export function startAgents(): void {
  poller = poll(load, 3000);
}

async function load(): Promise<void> {
  const { agents } = await api<{ agents: AgentRow[] }>("GET", "/api/v1/agents");
  const fresh = JSON.stringify(agents) + Math.floor(Date.now() / 10000);
  if (fresh === shown) return;
  shown = fresh;
  draw(agents);
}

function draw(agents: AgentRow[]): void {
  listed = agents;
  const pending = agents.filter((agent) => agent.state === "pending");
  const others = agents.filter((agent) => agent.state !== "pending");
  must("#loading").hidden = true;
  must("#no-agents").hidden = agents.length > 0;
  const online = agents.filter((agent) => agent.connected).length;
  must("#summary").textContent = agents.length ? `${plural(agents.length, "agent")}, ${online} connected, ${pending.length} waiting` : "";
  const parts: Child[] = [];
  if (pending.length) parts.push(waiting(pending));
  if (others.length) parts.push(table(others));
  redraw(must("#agents"), parts.filter(Boolean) as Node[]);
}

function waiting(pending: AgentRow[]): HTMLElement {
  const bar = can("admin") && pending.length > 1 && several.bar(pending, () => poller.now());
  return h("section", {}, h("h2", {}, "Waiting for approval"), bar, h("div", { class: "pending-list" }, ...pending.map((agent) => pendingCard(agent, bar !== false))));
}

function pendingCard(agent: AgentRow, tickable: boolean): HTMLElement {
  const facts = h(
    "dl",
    { class: "facts" },
    ...fact("key", fingerprint(agent)),
    ...fact("comes from", addressPair(agent)),
    ...fact("version", agent.version || "unknown"),
    ...fact("passphrase", agent.passphrase_label || "unknown"),
    ...fact("first seen", timeTag(agent.first_seen)),
    ...fact("last seen", timeTag(agent.last_seen)),
  );
  const head = h("header", {}, tickable && several.tick(agent), presence(agent), h("h3", {}, agent.hostname), kind(agent));
  return h("article", { class: "card pending", "data-agent": agent.hostname, "data-row": agent.id }, head, sameName(agent), facts, actions(agent));
}

function fact(name: string, value: Child): HTMLElement[] {
  return [h("dt", {}, name), h("dd", {}, value)];
}

function table(agents: AgentRow[]): HTMLElement {
  const titles = ["Agent", "State", "Address", "Key", "Version", "First seen", "Last seen", ""];
  const head = h("tr", {}, ...titles.map((title) => h("th", { scope: "col" }, title || h("span", { class: "sr-only" }, "Actions"))));
  return h("div", { class: "table-wrap" }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...agents.map(row))));
}

function row(agent: AgentRow): HTMLElement {
  const cell = (title: string, ...content: Child[]): HTMLElement => h("td", { "data-title": title }, ...content);
  return h(
    "tr",
    { "data-agent": agent.hostname, "data-row": agent.id },
    h("th", { scope: "row" }, h("span", { class: "name" }, presence(agent), agent.hostname, kind(agent)), sameName(agent)),
    cell("State", stateBadge(agent), refusals(agent), meshNote(agent)),
    cell("Address", addressPair(agent)),
    cell("Key", shortKey(agent)),
    cell("Version", agent.version || "–"),
    cell("First seen", timeTag(agent.first_seen)),
    cell("Last seen", timeTag(agent.last_seen), clockWarning(agent)),
    h("td", { class: "row-actions" }, actions(agent)),
  );
}

function presence(agent: AgentRow): HTMLElement {
  const word = agent.connected ? "connected" : "not connected";
  return h("span", { class: `dot ${agent.connected ? "on" : "off"}`, role: "img", "aria-label": word, title: word });
}

/** Below a second nobody can tell the clock from the way, and nothing is corrected (the server's rule). */
function clockWarning(agent: AgentRow): Child {
  const offset = agent.clock_offset_s ?? 0;
  if (Math.abs(offset) < 1) return null;
  const text = `clock ${duration(Math.abs(offset) * 1000)} ${offset > 0 ? "ahead" : "behind"}`;
  return h("div", { class: "warning small", title: "Times are shown corrected by this. Set the clock of the host, for example with NTP." }, `⚠ ${text}`);
}

/** What the agent's own policy keeps it from pinging, the first of it in words. */
function refusals(agent: AgentRow): Child {
  if (!agent.refused_count) return null;
  const lines = agent.refused.map((refusal) => h("li", {}, `${refusal.target}: ${refusal.reason}`));
  const more = agent.refused_count - agent.refused.length;
  if (more > 0) lines.push(h("li", {}, `and ${more} more: pingmon agents show ${agent.hostname}`));
  const summary = h("summary", { class: "warning small" }, `⚠ refuses ${plural(agent.refused_count, "target")}`);
  return h("details", { class: "refusals" }, summary, h("ul", { class: "muted small" }, ...lines));
}

function meshNote(agent: AgentRow): Child {
  return agent.not_in_mesh ? h("div", { class: "warning small" }, `⚠ not pinged by the others: ${agent.not_in_mesh}`) : null;
}

function kind(agent: AgentRow): Child {
  const until = agent.legacy_until ? `, which ends ${dateTime(agent.legacy_until)}` : "";
  return agent.legacy && h("span", { class: "tag", title: `has no key: it is known by a plain passphrase inside TLS${until}` }, "legacy");
}

function stateBadge(agent: AgentRow): HTMLElement {
  const badge = h("span", { class: `badge state-${agent.state}` }, STATE_WORDS[agent.state]);
  const reason = agent.hold_reason ? (HOLD_REASONS[agent.hold_reason] ?? agent.hold_reason) : "";
  const moved = agent.hold_reason === "ip_changed" && agent.allowed?.length && `it may come from ${agent.allowed.join(", ")}`;
  return h("div", {}, badge, reason && h("div", { class: "muted small" }, reason), moved && h("div", { class: "muted small" }, moved));
}

function addressPair(agent: AgentRow): HTMLElement {
  if (!agent.ip_address) return h("span", { class: "muted" }, "–");
  if (!agent.observed_ip || agent.observed_ip === agent.ip_address) return h("span", { class: "mono" }, agent.ip_address);
  const title = "The agent claims one address and was seen from another. Behind NAT this is normal.";
  return h("span", { class: "mono", title }, agent.ip_address, h("br"), h("span", { class: "muted" }, `seen from ${agent.observed_ip}`));
}

/** What people compare is in the title; the list shows enough to tell two agents apart. */
function shortKey(agent: AgentRow): HTMLElement {
  if (!agent.fingerprint) return h("span", { class: "muted" }, "–");
  const title = `${agent.fingerprint}${agent.passphrase_label ? `, came with passphrase “${agent.passphrase_label}”` : ""}`;
  return h("code", { class: "small", title }, agent.fingerprint.slice(0, 9));
}

function sameName(agent: AgentRow): Child {
  if (!agent.same_name_as.length) return null;
  const others = plural(agent.same_name_as.length, "other agent has", "other agents have");
  const advice = agent.state === "pending" ? " Approve only if you know that this is the right one." : "";
  return h("p", { class: "warning small" }, `⚠ ${others} this name.${advice}`);
}

interface Step {
  verb: string;
  label: string;
  css: string;
  ask?: string;
  title?: string;
}

function stepsOf(agent: AgentRow): Step[] {
  const release: Step[] = [{ verb: "release", label: "Release", css: "primary" }];
  if (agent.hold_reason === "ip_changed") release.push({ verb: "always", label: "Always", css: "", title: "Release it, and let it come from this address from now on" });
  const steps: Record<AgentRow["state"], Step[]> = {
    pending: [{ verb: "approve", label: "Approve …", css: "primary" }, REJECT],
    approved: [{ verb: "hold", label: "Hold", css: "" }],
    hold: [...release, REJECT],
    blacklisted: [{ verb: "approve", label: "Approve …", css: "" }],
  };
  return steps[agent.state].filter((step) => can("admin") || (step.label === "Release" && can("operator")));
}

function actions(agent: AgentRow): HTMLElement {
  const buttons = stepsOf(agent).map((step) =>
    h("button", { class: `button small ${step.css}`, type: "button", "data-verb": step.verb, title: step.title, on: { click: (event) => void decide(agent, step, event) } }, step.label),
  );
  if (can("admin")) {
    const remove = (event: MouseEvent): void => void removeAgent(agent, event);
    buttons.push(h("button", { class: "button small quiet-danger", type: "button", "data-verb": "delete", on: { click: remove } }, "Delete"));
  }
  return h("div", { class: "actions" }, ...buttons);
}

async function decide(agent: AgentRow, step: Step, event: MouseEvent): Promise<void> {
  const title = `${step.label} ${agent.hostname}?`;
  if (step.verb === "approve") return letIn(agent);
  if (step.ask && !(await confirm({ title, text: step.ask, action: step.label, danger: true }))) return;
  const verb = step.verb === "always" ? "release" : step.verb;
  const body = step.verb === "always" ? { always: true } : {};
  await change(event, `${agent.hostname} is now ${{ reject: "rejected", hold: "on hold", release: "approved again" }[verb]}.`, () =>
    api("POST", `/api/v1/agents/${encodeURIComponent(agent.id)}/${verb}`, body),
  );
}

async function letIn(agent: AgentRow): Promise<void> {
  try {
    const done = await ask(agent);
    if (done) notify(done);
  } catch (error) {
    report(error);
  }
  await poller.now();
}

async function removeAgent(agent: AgentRow, event: MouseEvent): Promise<void> {
  const text = "The agent and its history leave the picture for good. If it still runs, it shows up here again as new.";
  if (!(await confirm({ title: `Delete ${agent.hostname}?`, text, action: "Delete", danger: true }))) return;
  await change(event, `${agent.hostname} is deleted.`, () => api("DELETE", `/api/v1/agents/${encodeURIComponent(agent.id)}`));
}

async function change(event: MouseEvent, done: string, request: () => Promise<unknown>): Promise<void> {
  const button = event.currentTarget instanceof HTMLButtonElement ? event.currentTarget : null;
  if (button) button.disabled = true;
  try {
    await request();
    notify(done);
  } catch (error) {
    report(error);
  }
  if (button) button.disabled = false;
  await poller.now();
}
