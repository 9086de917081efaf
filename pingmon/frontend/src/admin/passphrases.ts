// The passphrases page: make one (shown once), see which are still good, take one back.
import { api } from "../api";
import type { AgentRow, PassphraseRow } from "../types";
import { h, must } from "../ui/dom";
import { confirm, copyButton, notify, report } from "../ui/feedback";
import { dateTime, timeTag } from "../ui/time";
import { poll, redraw, type Poller } from "./list";

let poller: Poller;
let shown = "";

export function startPassphrases(): void {
  poller = poll(load, 5000);
  must<HTMLFormElement>("#make-passphrase").addEventListener("submit", (event) => void make(event));
}

async function load(): Promise<void> {
  const { passphrases } = await api<{ passphrases: PassphraseRow[] }>("GET", "/api/v1/passphrases");
  const fresh = JSON.stringify(passphrases) + Math.floor(Date.now() / 15000);
  if (fresh === shown) return;
  shown = fresh;
  must("#loading").hidden = true;
  must("#no-passphrases").hidden = passphrases.length > 0;
  redraw(must("#passphrases"), passphrases.length ? [table(passphrases)] : []);
}

function table(rows: PassphraseRow[]): HTMLElement {
  const titles = ["Label", "State", "Kind", "Used", "Made", "Ends"];
  const head = h("tr", {}, ...titles.map((title) => h("th", { scope: "col" }, title)), h("th", { scope: "col" }, h("span", { class: "sr-only" }, "Actions")));
  return h("div", { class: "table-wrap" }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows.map(row))));
}

function row(passphrase: PassphraseRow): HTMLElement {
  const usable = passphrase.state === "usable";
  const revoke = h("button", { class: "button small quiet-danger", type: "button", "data-verb": "revoke", on: { click: () => void revokeOne(passphrase) } }, "Revoke");
  return h(
    "tr",
    { "data-passphrase": passphrase.label, "data-row": passphrase.id },
    h("th", { scope: "row" }, passphrase.label),
    h("td", { "data-title": "State" }, h("span", { class: `badge ${usable ? "state-approved" : "state-blacklisted"}` }, passphrase.state)),
    h("td", { "data-title": "Kind" }, kindOf(passphrase)),
    h("td", { "data-title": "Used" }, `${passphrase.uses} of ${passphrase.max_uses}`),
    h("td", { "data-title": "Made" }, timeTag(passphrase.created_at)),
    h("td", { "data-title": "Ends" }, timeTag(passphrase.expires_at, dateTime(passphrase.expires_at))),
    h("td", { class: "row-actions" }, usable && h("div", { class: "actions" }, revoke)),
  );
}

async function make(event: SubmitEvent): Promise<void> {
  event.preventDefault();
  const form = must<HTMLFormElement>("#make-passphrase");
  const values = new FormData(form);
  const button = must<HTMLButtonElement>("button[type=submit]", form);
  button.disabled = true;
  try {
    const made = await api<{ clear: string; passphrase: PassphraseRow }>("POST", "/api/v1/passphrases", {
      label: String(values.get("label") ?? "").trim(),
      legacy: values.get("legacy") !== null,
      max_uses: Number(values.get("max_uses")),
      ttl_s: Number(values.get("ttl_s")),
      networks: String(values.get("networks") ?? "").split(/[\s,;]+/).filter(Boolean),
    });
    form.reset();
    showOnce(made.clear, made.passphrase);
  } catch (error) {
    report(error);
  }
  button.disabled = false;
  await poller.now();
}

function agentToml(serverUrl: string): string {
  return [
    "[server]",
    `url = "${serverUrl}"`,
    'ca_file = "/etc/pingmon/ca.pem"',
    'passphrase_file = "/etc/pingmon/passphrase"',
  ].join("\n");
}

function showOnce(clear: string, passphrase: PassphraseRow): void {
  const toml = agentToml(document.body.dataset["server"] ?? `wss://${location.host}`);
  const variable = `pingmon_agent_passphrase: "${clear}"`;
  const block = (text: string, id: string): HTMLElement => h("div", { class: "snippet" }, h("pre", { id }, text), copyButton(() => text));
  const done = h("button", { class: "button primary", type: "button" }, "I have stored it");
  const arrived = h("p", { class: "muted", id: "arrived", role: "status" }, "No agent has come with it yet.");
  const dialog = h(
    "dialog",
    { class: "dialog wide", "aria-label": "New passphrase" },
    h("h2", {}, `Passphrase “${passphrase.label}”`),
    h("p", {}, "This is the only time it is shown. Put it into /etc/pingmon/passphrase on the new agent (mode 0600):"),
    block(clear, "clear-passphrase"),
    h("p", {}, "And this into /etc/pingmon/agent.toml, with a copy of the server's CA certificate in /etc/pingmon/ca.pem:"),
    block(toml, "agent-toml"),
    passphrase.legacy ? null : h("p", {}, "Then start it; it says its key, which you will be asked to compare:"),
    passphrase.legacy ? null : block("pingmon-agent run --config /etc/pingmon/agent.toml", "agent-command"),
    h("details", {}, h("summary", {}, "With Ansible"), h("p", {}, "In a vault file of the hosts it is for:"), block(variable, "ansible-variable")),
    arrived,
    h("div", { class: "dialog-actions" }, done),
  );
  const watching = setInterval(() => void watch(passphrase, arrived), 2000);
  done.addEventListener("click", () => dialog.close());
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.addEventListener("close", () => {
    clearInterval(watching);
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
}

/** Who has come with a passphrase that was just made. */
async function watch(passphrase: PassphraseRow, into: HTMLElement): Promise<void> {
  try {
    const { agents } = await api<{ agents: AgentRow[] }>("GET", "/api/v1/agents");
    const names = agents.filter((agent) => agent.passphrase_id === passphrase.id).map((agent) => agent.hostname);
    if (names.length) into.replaceChildren(`${names.join(", ")} came with it: `, h("a", { href: "/agents" }, "compare keys and approve"));
  } catch (error) {
    into.textContent = error instanceof Error ? error.message : String(error);
  }
}

function kindOf(passphrase: PassphraseRow): HTMLElement {
  const ends = passphrase.legacy_until ? `legacy, until ${dateTime(passphrase.legacy_until)}` : "sealed";
  const from = passphrase.networks.length > 0 && h("div", { class: "muted small" }, `from ${passphrase.networks.join(", ")}`);
  return h("div", {}, ends, from);
}

/** A passphrase that got into wrong hands may have brought agents that still wait. */
async function rejectPending(passphrase: PassphraseRow): Promise<void> {
  const { agents } = await api<{ agents: AgentRow[] }>("GET", "/api/v1/agents");
  const left = agents.filter((agent) => agent.state === "pending" && agent.passphrase_id === passphrase.id);
  if (!left.length) return;
  const detail = left.map((agent) => agent.hostname).join("\n");
  const question = { title: `Reject who came with ${passphrase.label}?`, text: "They still wait for approval.", detail, action: "Reject them", danger: true };
  if (await confirm(question)) await api("POST", `/api/v1/passphrases/${encodeURIComponent(passphrase.id)}/reject-pending`, {});
}

async function revokeOne(passphrase: PassphraseRow): Promise<void> {
  const text = passphrase.legacy
    ? "It opens nothing any more, also not for the legacy agents that use it."
    : "No new agent can enrol with it any more. Agents that are approved already stay: they are known by their keys.";
  if (!(await confirm({ title: `Revoke ${passphrase.label}?`, text, action: "Revoke", danger: true }))) return;
  try {
    await api("DELETE", `/api/v1/passphrases/${passphrase.id}`);
    notify(`${passphrase.label} is revoked.`);
    await rejectPending(passphrase);
  } catch (error) {
    report(error);
  }
  shown = "";
  await poller.now();
}
