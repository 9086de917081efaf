// The targets page: what all agents ping. Rows that stand for agents (the mesh) come and go with their agent.
import { api } from "../api";
import type { TargetRow } from "../types";
import { h, must, type Child } from "../ui/dom";
import { confirm, notify, report } from "../ui/feedback";
import { plural } from "../ui/time";
import { can, poll, type Poller } from "./list";
import { parseList, type NewTarget } from "./paste";
import { parseProbe, spellProbe } from "./probe";

let poller: Poller;
let shown = "";
let targets: TargetRow[] = [];
let editing: number | null = null;

export function startTargets(): void {
  poller = poll(load, 5000);
  if (!can("operator")) return;
  must<HTMLFormElement>("#add-target").addEventListener("submit", (event) => void add(event));
  must("#paste-open").addEventListener("click", openPaste);
}

async function load(): Promise<void> {
  const body = await api<{ targets: TargetRow[] }>("GET", "/api/v1/targets");
  const fresh = JSON.stringify(body.targets);
  if (fresh === shown || editing !== null) return;
  shown = fresh;
  targets = body.targets;
  draw();
}

function draw(): void {
  must("#loading").hidden = true;
  must("#no-targets").hidden = targets.length > 0;
  const mesh = targets.filter((target) => target.agent_id !== null).length;
  must("#summary").textContent = targets.length ? `${plural(targets.length, "target")}${mesh ? `, ${mesh} of them agents` : ""}` : "";
  const head = h("tr", {}, ...["Name", "Address", "Probing", "Kind"].map((title) => h("th", { scope: "col" }, title)), h("th", { scope: "col" }, h("span", { class: "sr-only" }, "Actions")));
  const table = h("div", { class: "table-wrap" }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...targets.map(row))));
  must("#targets").replaceChildren(...(targets.length ? [table] : []));
}

function row(target: TargetRow): HTMLElement {
  if (editing === target.id) return editRow(target);
  const mesh = target.agent_id !== null;
  return h(
    "tr",
    { "data-target": target.name },
    h("th", { scope: "row" }, target.name),
    h("td", { "data-title": "Address", class: "mono" }, target.address),
    h("td", { "data-title": "Probing", class: "mono" }, spellProbe(target.probe) || h("span", { class: "muted" }, "standard")),
    h("td", { "data-title": "Kind" }, mesh ? h("span", { class: "tag", title: "An approved agent that the other agents ping. It leaves with its agent." }, "agent") : h("span", { class: "muted" }, "host")),
    h("td", { class: "row-actions" }, !mesh && can("operator") && rowActions(target)),
  );
}

function rowActions(target: TargetRow): HTMLElement {
  const edit = (): void => {
    editing = target.id;
    draw();
    must<HTMLInputElement>("#edit-name").focus();
  };
  return h(
    "div",
    { class: "actions" },
    h("button", { class: "button small", type: "button", on: { click: edit } }, "Edit"),
    h("button", { class: "button small quiet-danger", type: "button", on: { click: () => void remove(target) } }, "Remove"),
  );
}

function editRow(target: TargetRow): HTMLElement {
  const name = h("input", { id: "edit-name", value: target.name, "aria-label": "Name", maxlength: 253, required: true });
  const address = h("input", { value: target.address, "aria-label": "Address", maxlength: 253, required: true, class: "mono" });
  const probe = h("input", { value: spellProbe(target.probe), "aria-label": "Probing", maxlength: 200, placeholder: "standard", class: "mono" });
  const stop = (): void => {
    editing = null;
    draw();
  };
  const save = async (): Promise<void> => {
    try {
      await api("PATCH", `/api/v1/targets/${target.id}`, { name: name.value.trim(), address: address.value.trim(), probe: parseProbe(words(probe.value)) });
      editing = null;
      await reload(`${name.value.trim()} is changed.`);
    } catch (error) {
      report(error);
    }
  };
  const keys = (event: KeyboardEvent): void => {
    if (event.key === "Enter") void save();
    if (event.key === "Escape") stop();
  };
  const buttons: Child[] = [
    h("button", { class: "button small primary", type: "button", on: { click: () => void save() } }, "Save"),
    h("button", { class: "button small", type: "button", on: { click: stop } }, "Cancel"),
  ];
  return h(
    "tr",
    { class: "editing", on: { keydown: keys } },
    h("th", { scope: "row" }, name),
    h("td", {}, address),
    h("td", { colspan: 2 }, probe),
    h("td", { class: "row-actions" }, h("div", { class: "actions" }, ...buttons)),
  );
}

function words(text: string): string[] {
  return text.split(/\s+/).filter(Boolean);
}

async function reload(done: string): Promise<void> {
  notify(done);
  shown = "";
  await poller.now();
}

async function add(event: SubmitEvent): Promise<void> {
  event.preventDefault();
  const form = must<HTMLFormElement>("#add-target");
  const name = must<HTMLInputElement>("[name=name]", form);
  const address = must<HTMLInputElement>("[name=address]", form);
  const probe = must<HTMLInputElement>("[name=probe]", form);
  const target = { name: name.value.trim() || address.value.trim(), address: address.value.trim(), probe: parseProbe(words(probe.value)) };
  try {
    await api("POST", "/api/v1/targets", target);
    form.reset();
    name.focus();
    await reload(`${target.name} is added. All approved agents ping it from the next round on.`);
  } catch (error) {
    report(error);
  }
}

async function remove(target: TargetRow): Promise<void> {
  const text = "All agents stop pinging it with the next round, and its column leaves the grid.";
  if (!(await confirm({ title: `Remove ${target.name}?`, text, action: "Remove", danger: true }))) return;
  try {
    await api("DELETE", `/api/v1/targets/${target.id}`);
    await reload(`${target.name} is removed.`);
  } catch (error) {
    report(error);
  }
}


function openPaste(): void {
  const own = targets.filter((target) => target.agent_id === null);
  const text = h("textarea", { rows: 14, class: "mono", "aria-label": "Targets, one per line", spellcheck: "false" });
  text.value = own.map((target) => `${target.name} ${target.address} ${spellProbe(target.probe)}`.trimEnd()).join("\n");
  const outcome = h("p", { class: "small", role: "status" });
  const save = h("button", { class: "button primary", type: "button" }, "Replace the list");
  const cancel = h("button", { class: "button", type: "button" }, "Cancel");
  const dialog = h(
    "dialog",
    { class: "dialog wide", "aria-label": "Paste a whole list" },
    h("h2", {}, "Paste a whole list"),
    h("p", {}, "One target per line: name, address, and settings such as count=3 where it needs them. This becomes the whole list; lines you take out are removed. Agents of the mesh are not part of it."),
    text,
    outcome,
    h("div", { class: "dialog-actions" }, cancel, save),
  );
  const preview = (): void => tellOutcome(outcome, save, text.value, own);
  text.addEventListener("input", preview);
  cancel.addEventListener("click", () => dialog.close());
  save.addEventListener("click", () => void putList(text.value, dialog));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  preview();
}

function tellOutcome(into: HTMLElement, save: HTMLButtonElement, text: string, own: TargetRow[]): void {
  const wanted = parseList(text);
  const key = (target: NewTarget): string => `${target.name} ${target.address} ${spellProbe(target.probe)}`;
  const now = new Set(own.map(key));
  const then = new Set(wanted.map(key));
  const added = [...then].filter((k) => !now.has(k)).length;
  const removed = [...now].filter((k) => !then.has(k)).length;
  into.textContent = `${plural(wanted.length, "target")}: ${added} new or changed, ${removed} leave.`;
  save.disabled = added + removed === 0;
}

async function putList(text: string, dialog: HTMLDialogElement): Promise<void> {
  try {
    await api("PUT", "/api/v1/targets", { targets: parseList(text) });
    dialog.close();
    await reload("The list is replaced. All approved agents have it now.");
  } catch (error) {
    must("[role=status]", dialog).textContent = error instanceof Error ? error.message : String(error);
  }
}
