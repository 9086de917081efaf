// The question before an agent is let in: everything that is known of it, its key to compare, and what follows.
// Decides nothing: the server checks that key and revision are still those that were looked at.
import { api, ApiError } from "../api";
import type { AgentRow, Evidence } from "../types";
import { h, type Child } from "../ui/dom";
import { plural, timeTag } from "../ui/time";

const path = (agent: { id: string }, verb: string): string => `/api/v1/agents/${encodeURIComponent(agent.id)}/${verb}`;

/** The key as `pingmon-agent identity` prints it. */
export function fingerprint(agent: AgentRow): HTMLElement {
  if (!agent.fingerprint) return h("span", { class: "muted" }, "none: a legacy agent is known by name and passphrase only");
  return h("code", { class: "fingerprint" }, agent.fingerprint);
}

/** Sends what somebody decided, together with what was seen. */
export function approve(agent: AgentRow): Promise<unknown> {
  return api("POST", path(agent, "approve"), seen(agent));
}

function seen(agent: AgentRow): object {
  const key = agent.key_fpr ? { expected_key_fpr: agent.key_fpr } : {};
  return { ...key, expected_revision: agent.revision };
}

/** Shows the evidence and asks; resolves to what was done, in a sentence, or null. */
export async function ask(agent: AgentRow): Promise<string | null> {
  const first = await api<Evidence>("GET", path(agent, "evidence"));
  return new Promise((resolve) => new Dialog(first, resolve).open());
}

class Dialog {
  private readonly element: HTMLDialogElement;
  private done: string | null = null;

  constructor(
    private now: Evidence,
    resolve: (done: string | null) => void,
  ) {
    this.element = h("dialog", { class: "dialog wide", "aria-label": `Approve ${now.hostname}?` });
    this.element.addEventListener("close", () => {
      this.element.remove();
      resolve(this.done);
    });
  }

  open(): void {
    this.draw();
    document.body.append(this.element);
    this.element.showModal();
    this.element.querySelector<HTMLButtonElement>("[data-verb=cancel]")?.focus();
  }

  private draw(changed = ""): void {
    const agent = this.now;
    const key = agent.fingerprint
      ? h("p", {}, "Run ", h("code", {}, "pingmon-agent identity"), " on that host. It must print this key:")
      : h("p", {}, "It has no key of its own. Whoever knows its passphrase can come in its place.");
    this.element.replaceChildren(
      h("h2", {}, `Approve ${agent.hostname}?`),
      ...(changed ? [h("p", { class: "warning", role: "alert" }, `⚠ ${changed}`)] : []),
      key,
      h("p", { class: "fingerprint-box" }, fingerprint(agent)),
      facts(agent),
      ...warnings(agent),
      h("p", { class: "muted" }, adds(agent)),
      this.buttons(),
    );
  }

  private buttons(): HTMLElement {
    const rival = this.now.same_name.find((other) => other.state === "approved" || other.state === "hold");
    const button = (verb: string, label: string, css: string, press: () => void): HTMLElement =>
      h("button", { class: `button ${css}`, type: "button", "data-verb": verb, on: { click: press } }, label);
    const yes = rival
      ? button("rekey", "It is the same host: give it this key", "primary", () => void this.rekey(rival))
      : button("approve", "The keys agree: approve", "primary", () => void this.approve());
    return h("div", { class: "dialog-actions" }, button("cancel", "Cancel", "", () => this.element.close()), yes);
  }

  private approve(): Promise<void> {
    return this.send(() => approve(this.now), `${this.now.hostname} is now approved.`);
  }

  private rekey(rival: AgentRow): Promise<void> {
    const body = { with: this.now.id, ...(this.now.key_fpr ? { expected_key_fpr: this.now.key_fpr } : {}) };
    return this.send(() => api("POST", path(rival, "rekey"), body), `${rival.hostname} has its new key; its history goes on.`);
  }

  private async send(request: () => Promise<unknown>, done: string): Promise<void> {
    for (const button of this.element.querySelectorAll("button")) button.disabled = true;
    try {
      await request();
      this.done = done;
      this.element.close();
    } catch (error) {
      await this.again(error);
    }
  }

  /** What was looked at may be something else by now: shows it as it is, and why it was refused. */
  private async again(error: unknown): Promise<void> {
    let why = error instanceof Error ? error.message : String(error);
    if (error instanceof ApiError && error.status === 409) {
      try {
        this.now = await api<Evidence>("GET", path(this.now, "evidence"));
      } catch (gone) {
        why = gone instanceof Error ? gone.message : why;
      }
    }
    this.draw(why);
  }
}

function facts(agent: Evidence): HTMLElement {
  const fact = (name: string, value: Child): HTMLElement[] => [h("dt", {}, name), h("dd", {}, value)];
  return h(
    "dl",
    { class: "facts" },
    ...fact("says it is at", agent.ip_address),
    ...fact("is seen from", agent.observed_ip),
    ...fact("came with", agent.passphrase_label ? `passphrase “${agent.passphrase_label}”` : "its key only"),
    ...fact("version", agent.version || "unknown"),
    ...fact("first seen", timeTag(agent.first_seen)),
  );
}

function warnings(agent: Evidence): HTMLElement[] {
  const warning = (text: string): HTMLElement => h("p", { class: "warning" }, `⚠ ${text}`);
  const found = agent.same_name.map((other) =>
    warning(
      `Another agent is called ${other.hostname}: ${other.state}, ${other.connected ? "connected now" : "not connected"}, key ` +
        `${other.fingerprint ?? "none"}. ${other.state === "blacklisted" ? "It was sent away." : "Is this the same host, set up anew?"}`,
    ),
  );
  for (const old of agent.same_key) found.push(warning(`This key was that of ${old.hostname}, which was deleted.`));
  if (agent.ip_address !== agent.observed_ip) found.push(warning("It says another address than the one it is seen from. Behind NAT this is normal."));
  return found;
}

function adds(agent: Evidence): string {
  const { series, pings_per_s: rate } = agent.adds;
  return `Approving adds ${plural(series, "path")} and ${rate < 10 ? rate.toFixed(1) : Math.round(rate).toLocaleString("en")} pings per second.`;
}
