// The card of one cell: names, figures and the chart of the hour before now, or before the instant that is looked at. Shown on hover or focus, kept when pinned.
import type uPlot from "uplot";
import { api } from "../api";
import type { Completeness, MissingSpan, PairHistory } from "../types";
import { h } from "../ui/dom";
import { ago, clockTime, plural } from "../ui/time";
import { drawChart, HOUR_S } from "./chart";
import { gapLines, missingSpans } from "./gaps";
import type { Pair, Picture } from "./picture";
import { lastInWords, STATES } from "./states";
import { summarise } from "./summary";

const WAIT_MS = 90;
const MARGIN = 10;

export class Card {
  readonly element = h("aside", { class: "card pair", hidden: true, "aria-label": "An hour of this path" });
  pinned = false;
  private readonly heading = h("h2", {});
  private readonly badge = h("span", { class: "badge" });
  private readonly sub = h("p", { class: "muted small" });
  private readonly figures = h("dl", { class: "figures" });
  private readonly plot = h("div", { class: "plot" });
  private readonly readout = h("span", {});
  private readonly link = h("a", { target: "_blank", rel: "noopener" }, "JSON");
  private readonly foot = h("p", { class: "muted small card-foot" });
  private readonly note = h("p", { class: "card-note", hidden: true });
  private readonly gaps = h("ul", { class: "card-gaps muted small", "aria-label": "Gaps of this hour", hidden: true });
  private chart: uPlot | null = null;
  private key = "";
  private loadedAt = 0;
  private timer = 0;
  private request: AbortController | null = null;

  constructor(
    private readonly picture: Picture,
    onClose: () => void,
  ) {
    const close = h("button", { class: "card-close", type: "button", "aria-label": "Close", on: { click: onClose } }, "×");
    this.foot.append(h("span", {}, "one hour"), this.readout, this.link);
    this.element.append(h("header", {}, this.heading, this.badge, close), this.sub, this.figures, this.plot, this.note, this.gaps, this.foot);
    document.body.append(this.element);
  }

  show(pair: Pair, anchor: DOMRect): void {
    const key = this.keyOf(pair);
    this.element.hidden = false;
    if (key !== this.key) this.turnTo(pair, key);
    this.refreshHead(pair);
    this.place(anchor);
  }

  hide(): void {
    this.element.hidden = true;
    this.pinned = false;
    this.element.classList.remove("pinned");
    this.key = "";
    clearTimeout(this.timer);
    this.request?.abort();
  }

  pin(): void {
    this.pinned = true;
    this.element.classList.add("pinned");
  }

  /** Called when new rows came in: keeps figures current, at most once per probing interval. */
  refresh(pair: Pair): void {
    if (this.element.hidden) return;
    this.refreshHead(pair);
    if (Date.now() - this.loadedAt > this.picture.layout.interval_s * 1000) void this.load(pair, this.key);
  }

  redraw(pair: Pair): void {
    if (!this.element.hidden) void this.load(pair, this.key);
  }

  private keyOf(pair: Pair): string {
    const { agents, targets } = this.picture.layout;
    return `${agents[pair.agentIndex]?.id}/${targets[pair.targetIndex]?.id}/${this.picture.asOfMs ?? "now"}`;
  }

  private turnTo(pair: Pair, key: string): void {
    this.key = key;
    this.clearChart();
    this.fillFigures("–", "–", "–", "–");
    this.say("");
    this.tellGaps([]);
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.load(pair, key), WAIT_MS);
  }

  private refreshHead(pair: Pair): void {
    const { agents, targets } = this.picture.layout;
    const agent = agents[pair.agentIndex];
    const target = targets[pair.targetIndex];
    if (!agent || !target) return;
    const cell = pair.agentIndex * targets.length + pair.targetIndex;
    const state = STATES[this.picture.state[cell] ?? 0];
    const last = this.picture.lastRound[pair.agentIndex] ?? null;
    this.heading.replaceChildren(h("span", {}, agent.hostname), h("span", { class: "arrow", "aria-label": "to" }, "→"), h("span", {}, target.name));
    this.badge.className = `badge cell-${state?.word ?? "none"}`;
    this.badge.textContent = [state?.glyph, state?.label].filter(Boolean).join(" ");
    const age = !last ? "no round yet" : `round ${ago(last - this.picture.clockOffsetMs)}`;
    this.sub.textContent = `${target.address} · ${lastInWords(this.picture.rtt[cell] ?? -2)} · ${age}`;
    this.link.href = this.historyOf(agent.id, target.id);
  }

  /** The hour before now, or before the instant that is looked at. */
  private historyOf(agentId: string, targetId: number): string {
    const pair = `${encodeURIComponent(agentId)}/${targetId}`;
    if (this.picture.asOfMs === null) return `/monitoring/${pair}`;
    const at = this.atS();
    return `/api/v1/history/${pair}?from=${at - HOUR_S}&to=${at}&step=raw`;
  }

  private accountOf(agentId: string, targetId: number): string {
    const at = this.atS();
    const until = this.picture.asOfMs === null ? "" : `&to=${at}`;
    return `/api/v1/completeness/${encodeURIComponent(agentId)}/${targetId}?from=${Math.floor(at - HOUR_S)}${until}`;
  }

  private async load(pair: Pair, key: string): Promise<void> {
    this.request?.abort();
    this.request = new AbortController();
    this.loadedAt = Date.now();
    const { agents, targets } = this.picture.layout;
    const agent = agents[pair.agentIndex];
    const target = targets[pair.targetIndex];
    if (!agent || !target) return;
    try {
      const [history, account] = await Promise.all([
        api<PairHistory>("GET", this.historyOf(agent.id, target.id), undefined, this.request.signal),
        api<Completeness>("GET", this.accountOf(agent.id, target.id), undefined, this.request.signal),
      ]);
      if (key === this.key) this.fill(history, missingSpans(account), account.refused?.reason ?? "");
    } catch (error) {
      if (error instanceof DOMException) return;
      if (key === this.key) this.say(error instanceof Error ? error.message : String(error));
    }
  }

  /** Now by the server's clock, or the instant that is looked at. */
  private atS(): number {
    return (this.picture.asOfMs ?? Date.now() + this.picture.clockOffsetMs) / 1000;
  }

  private tellGaps(spans: readonly MissingSpan[], refused = ""): void {
    const lines = gapLines(spans, clockTime);
    if (refused) lines.unshift(`The agent's host refuses to ping this target: ${refused}.`);
    this.gaps.replaceChildren(...lines.map((line) => h("li", {}, line)));
    this.gaps.hidden = lines.length === 0;
  }

  private fill(history: PairHistory, missing: readonly MissingSpan[], refused: string): void {
    const summary = summarise(history.samples);
    this.fillFigures(summary.current, summary.median, summary.max, summary.loss);
    this.clearChart();
    this.say(summary.measured ? "" : "Nothing was measured on this path in this hour.");
    this.tellGaps(missing, refused);
    if (!summary.measured) return;
    this.chart = drawChart(this.plot, history, missing, this.atS(), this.readout);
    this.plot.setAttribute("role", "img");
    this.plot.setAttribute("aria-label", `${plural(summary.measured, "ping")}, median ${summary.median}, ${summary.loss} lost`);
  }

  private fillFigures(current: string, median: string, max: string, loss: string): void {
    const pairs = [["current", current], ["median", median], ["max", max], ["loss", loss]] as const;
    this.figures.replaceChildren(...pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }

  private say(message: string): void {
    this.note.textContent = message;
    this.note.hidden = !message;
    this.plot.hidden = Boolean(message);
  }

  private clearChart(): void {
    this.chart?.destroy();
    this.chart = null;
    this.readout.textContent = "";
  }

  /** Beside the cell, on the side with more room; a narrow screen shows it at the foot (style sheet). */
  private place(anchor: DOMRect): void {
    if (matchMedia("(max-width: 640px)").matches) {
      this.element.removeAttribute("style");
      return;
    }
    const { offsetWidth: w, offsetHeight: height } = this.element;
    const below = anchor.bottom + MARGIN + height <= innerHeight;
    const top = below ? anchor.bottom + MARGIN : anchor.top - MARGIN - height;
    const left = Math.min(Math.max(MARGIN, anchor.left + anchor.width / 2 - w / 2), innerWidth - w - MARGIN);
    this.element.style.left = `${left}px`;
    this.element.style.top = `${Math.max(MARGIN, top)}px`;
  }
}
