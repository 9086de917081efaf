// The grid page: wires socket, picture and view together, and fills what stands around the grid: summary, freshness,
// legend, filters, and what to do next when there is nothing to show.
import { h, must } from "../ui/dom";
import { clockTime, duration, plural } from "../ui/time";
import { Live, type LinkState } from "./live";
import { Picture, type PastPicture } from "./picture";
import { Scrubber } from "./scrub";
import { BAD, DOWN, ERROR, LOSSY, NONE, OK, SLOW, STALE, STATES } from "./states";
import { GridView } from "./view";

const LEGEND_ORDER = [OK, SLOW, BAD, LOSSY, DOWN, ERROR, STALE, NONE];

class GridPage {
  private readonly picture = new Picture();
  private readonly view = new GridView(this.picture);
  private readonly live: Live;
  private readonly startedMs = Date.now();
  private readonly agentFilter = must<HTMLInputElement>("#filter-agents");
  private readonly targetFilter = must<HTMLInputElement>("#filter-targets");
  private readonly tallies = new Map<number, HTMLElement>();
  private lastRowsMs = 0;

  constructor() {
    must("#grid-place").append(this.view.element, this.view.announcer);
    this.buildLegend();
    this.setUpTools();
    this.live = new Live(
      this.picture,
      () => this.layoutChanged(),
      (rows) => this.rowsChanged(rows),
      () => this.tellLink(),
    );
    new Scrubber((past) => this.lookAt(past));
    this.tellLink();
    setInterval(() => this.tellLink(), 1000);
  }

  private setUpTools(): void {
    for (const input of [this.agentFilter, this.targetFilter]) input.addEventListener("input", () => this.applyFilters());
    must("#zoom-in").addEventListener("click", () => this.view.zoom(1));
    must("#zoom-out").addEventListener("click", () => this.view.zoom(-1));
    must("#zoom-fit").addEventListener("click", () => this.view.zoomToFit());
    document.addEventListener("keydown", (event) => {
      const typing = event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey;
      if (event.key !== "/" || typing) return;
      event.preventDefault();
      this.agentFilter.focus();
    });
  }

  private buildLegend(): void {
    const items = LEGEND_ORDER.map((code) => {
      const state = STATES[code];
      const count = h("span", { class: "count" });
      this.tallies.set(code, count);
      const swatch = h("span", { class: `swatch cell-${state?.word}`, "aria-hidden": "true" }, state?.glyph || "12");
      return h("li", { title: state?.meaning ?? "" }, swatch, h("span", {}, state?.label), count);
    });
    must("#legend").replaceChildren(...items);
  }

  private layoutChanged(): void {
    const { warn_ms: warn, bad_ms: bad } = this.picture.layout.thresholds;
    const items = must("#legend").children;
    items[1]?.setAttribute("title", `${warn} ms or more`);
    items[2]?.setAttribute("title", `${bad} ms or more`);
    this.tellTrouble(this.picture.layout.trouble ?? "");
    this.applyFilters();
    this.summarise();
  }

  /** An earlier picture, or null for the live one. */
  private lookAt(past: PastPicture | null): void {
    if (!past) return this.live.resume();
    if (this.live.link.kind !== "past") this.live.pause();
    this.picture.showPast(past);
    this.layoutChanged();
    this.tellLink();
  }

  private tellTrouble(sentence: string): void {
    const banner = must("#trouble");
    banner.hidden = !sentence;
    if (banner.textContent !== sentence) banner.textContent = sentence;
  }

  private rowsChanged(rows: number[]): void {
    this.lastRowsMs = Date.now();
    this.view.rowsChanged(rows);
    this.summarise();
  }

  private applyFilters(): void {
    const { agents, targets } = this.picture.layout;
    const rows = matching(agents, this.agentFilter.value, (agent) => agent.hostname);
    const columns = matching(targets, this.targetFilter.value, (target) => `${target.name} ${target.address}`);
    this.tellEmpty(rows.length, columns.length);
    this.view.showOnly(rows, columns);
  }

  private tellEmpty(rows: number, columns: number): void {
    const { agents, targets } = this.picture.layout;
    const show = (selector: string, on: boolean): void => {
      must(selector).hidden = !on;
    };
    show("#no-agents", agents.length === 0);
    show("#no-targets", agents.length > 0 && targets.length === 0);
    show("#no-match", agents.length > 0 && targets.length > 0 && (rows === 0 || columns === 0));
    show("#grid-place", rows > 0 && columns > 0);
    show("#legend", rows > 0 && columns > 0);
    show("#loading", false);
    show("#tools", agents.length > 0 && targets.length > 0);
  }

  private summarise(): void {
    const { agents, targets } = this.picture.layout;
    const counts = this.picture.counts();
    const parts = [DOWN, ERROR, LOSSY, BAD, SLOW, STALE].flatMap((code) => (counts[code] ? [`${counts[code].toLocaleString("en")} ${STATES[code]?.label}`] : []));
    const paths = [`${plural(counts[OK] ?? 0, "path")} ok`, ...parts].join(", ");
    const some = agents.length || targets.length;
    must("#summary").textContent = !some ? "Nothing to show yet" : `${plural(agents.length, "agent")}, ${plural(targets.length, "target")}: ${paths}`;
    for (const [code, element] of this.tallies) element.textContent = (counts[code] ?? 0).toLocaleString("en");
    document.title = counts[DOWN] ? `(${counts[DOWN]} down) pingmon` : "pingmon";
  }

  private tellLink(): void {
    const badge = must("#link");
    const { word, text } = this.freshness(this.live.link);
    badge.className = `link link-${word}`;
    badge.textContent = text;
    must("#signed-out").hidden = word !== "signed-out";
    must("main").classList.toggle("old", word === "reconnecting" || word === "stale");
  }

  private freshness(link: LinkState): { word: string; text: string } {
    const since = this.lastRowsMs;
    if (link.kind === "past") return { word: "past", text: `as of ${clockTime(this.picture.asOfMs ?? 0)}` };
    if (link.kind === "signed-out") return { word: "signed-out", text: "signed out" };
    if (link.kind === "reconnecting") {
      const age = since ? `, picture is ${duration(Date.now() - since)} old` : "";
      return { word: "reconnecting", text: `reconnecting${age}` };
    }
    if (link.kind === "connecting") return Date.now() - this.startedMs > 8000 ? { word: "reconnecting", text: "no answer yet, still trying" } : { word: "connecting", text: "connecting" };
    const limit = this.picture.layout.interval_s * 3000;
    const newest = this.picture.newestRoundMs() - this.picture.clockOffsetMs;
    const quiet = Date.now() - Math.max(newest, 0);
    if (this.picture.layout.agents.length && newest > 0 && quiet > limit) return { word: "stale", text: `stale since ${clockTime(newest)}: no agent reports` };
    return { word: "live", text: "live" };
  }
}

/** Indexes of the items whose text holds every word of the filter. */
function matching<T>(items: readonly T[], filter: string, text: (item: T) => string): number[] {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  return items.flatMap((item, i) => (words.every((word) => text(item).toLowerCase().includes(word)) ? [i] : []));
}

export function startGrid(): void {
  new GridPage();
}
