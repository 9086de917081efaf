// The grid as a thing one can scroll, point at and walk through with the keyboard. Turns events into a lit cell and a
// card; says the focused cell to screen readers through one real row of ARIA cells (the canvas itself is silent).
import { h } from "../ui/dom";
import { ago } from "../ui/time";
import { onThemeChange } from "../ui/chrome";
import { Card, type Pair } from "./card";
import { layOut, SIZES, spotAt, stepFrom, type Geometry, type Spot } from "./geometry";
import { Painter, rowTag } from "./painter";
import type { Picture } from "./picture";
import { lastInWords, STATES } from "./states";

const SCROLLBAR = 16;
const ZOOM_KEY = "pingmon.zoom";
/** less than a hand moves a mouse on purpose, more than the rounding of positions on dense screens */
const STILL_PX = 3;

export class GridView {
  readonly element = h("div", { class: "grid", id: "grid", tabindex: "0", role: "grid", "aria-label": "Round-trip times, agents by targets" });
  private readonly canvas = h("canvas", { "aria-hidden": "true" });
  private readonly space = h("div", { class: "grid-space", "aria-hidden": "true" });
  private readonly spoken = h("div", { class: "sr-only", "aria-live": "polite", id: "grid-spoken" });
  private readonly columnName = h("div", { role: "columnheader" });
  private readonly rowName = h("div", { role: "rowheader" });
  private readonly activeCell = h("div", { role: "gridcell", id: "grid-active" });
  private readonly activeRow = h("div", { role: "row" }, this.rowName, this.activeCell);
  private readonly painter = new Painter(this.canvas);
  private readonly card: Card;
  private geometry!: Geometry;
  private rows: number[] = [];
  private mouse: { x: number; y: number } | null = null;
  private columns: number[] = [];
  private spot: Spot | null = null;
  private byKeyboard = false;
  private chosenSize: number | null = readZoom();
  private frame = 0;

  constructor(private readonly picture: Picture) {
    const live = h("div", { class: "sr-only" }, h("div", { role: "row" }, this.columnName), this.activeRow);
    this.element.append(h("div", { class: "grid-window" }, this.canvas), this.space, live);
    this.element.setAttribute("aria-activedescendant", "grid-active");
    this.card = new Card(picture, () => this.dismiss());
    this.listen();
  }

  get announcer(): HTMLElement {
    return this.spoken;
  }

  /** Which agents and targets to show, by index into the layout. */
  showOnly(rows: number[], columns: number[]): void {
    this.rows = rows;
    this.columns = columns;
    this.dismiss();
    this.resize();
  }

  zoom(step: number): void {
    const from = this.chosenSize ?? this.geometry.sizeIndex;
    this.chosenSize = Math.min(Math.max(from + step, 0), SIZES.length - 1);
    localStorage.setItem(ZOOM_KEY, String(this.chosenSize));
    this.resize();
  }

  zoomToFit(): void {
    this.chosenSize = null;
    localStorage.removeItem(ZOOM_KEY);
    this.resize();
  }

  rowsChanged(changed: readonly number[]): void {
    this.requestPaint();
    const pair = this.pair();
    if (pair && changed.includes(pair.agentIndex)) this.card.refresh(pair);
  }

  resize(): void {
    const { agents, targets } = this.picture.layout;
    const viewW = this.roomAcross();
    const top = this.element.getBoundingClientRect().top + window.scrollY;
    const viewH = Math.max(220, window.innerHeight - top - 74);
    this.geometry = layOut({
      rows: this.rows.length,
      columns: this.columns.length,
      longestRow: this.painter.widest(agents.map((agent) => `${agent.hostname}  ${rowTag(agent)}`)),
      longestColumn: this.painter.widest(targets.map((target) => target.name)),
      viewW,
      viewH,
      chosen: this.chosenSize,
    });
    this.frameFor(viewW, viewH);
    this.element.setAttribute("aria-rowcount", String(this.rows.length + 1));
    this.element.setAttribute("aria-colcount", String(this.columns.length + 1));
    this.requestPaint();
  }

  /** Sizes the scroll area; bars are decided here, for a browser that decides makes room for one it does not need. */
  private frameFor(viewW: number, viewH: number): void {
    const { width, height } = this.geometry;
    const across = width + (height > viewH ? SCROLLBAR : 0) > viewW;
    const down = height + (across ? SCROLLBAR : 0) > viewH;
    const { style } = this.element;
    style.overflowX = across ? "scroll" : "hidden";
    style.overflowY = down ? "scroll" : "hidden";
    style.width = `${Math.min(width + (down ? SCROLLBAR : 0), viewW)}px`;
    style.height = `${Math.min(height + (across ? SCROLLBAR : 0), viewH)}px`;
    this.space.style.width = `${width}px`;
    this.space.style.height = `${height}px`;
  }

  /** What the page leaves for the grid: the parent's width without its padding and border. */
  private roomAcross(): number {
    const place = this.element.parentElement;
    const page = place?.parentElement;
    if (!place || !page) return 300;
    const box = getComputedStyle(page);
    const frame = place.offsetWidth - place.clientWidth + 2 * Number.parseFloat(getComputedStyle(place).paddingLeft);
    return page.clientWidth - Number.parseFloat(box.paddingLeft) - Number.parseFloat(box.paddingRight) - frame;
  }

  private listen(): void {
    const { element } = this;
    element.addEventListener("scroll", () => this.scrolled(), { passive: true });
    element.addEventListener("pointermove", (event) => this.pointed(event));
    element.addEventListener("pointerleave", () => this.strayed());
    element.addEventListener("click", (event) => this.clicked(event));
    element.addEventListener("keydown", (event) => this.pressed(event));
    element.addEventListener("focus", () => this.focused());
    element.addEventListener("blur", () => this.left());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && event.target !== element) this.dismiss();
    });
    new ResizeObserver(() => this.resize()).observe(document.documentElement);
    onThemeChange(() => {
      this.painter.takeTheme();
      this.requestPaint();
      const pair = this.pair();
      if (pair) this.card.redraw(pair);
    });
  }

  private requestPaint(): void {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
    });
  }

  private paint(): void {
    if (!this.geometry) return;
    this.painter.paint({
      picture: this.picture,
      geometry: this.geometry,
      rows: this.rows,
      columns: this.columns,
      scrollX: this.element.scrollLeft,
      scrollY: this.element.scrollTop,
      viewW: this.element.clientWidth,
      viewH: this.element.clientHeight,
      lit: this.spot,
      focused: this.byKeyboard,
    });
  }

  private pair(): Pair | null {
    if (!this.spot) return null;
    const agentIndex = this.rows[this.spot.row];
    const targetIndex = this.columns[this.spot.column];
    return agentIndex === undefined || targetIndex === undefined ? null : { agentIndex, targetIndex };
  }

  private light(spot: Spot | null): void {
    this.spot = spot;
    const pair = this.pair();
    if (pair && spot) this.card.show(pair, this.rectOf(spot));
    else this.card.hide();
    this.requestPaint();
  }

  private rectOf(spot: Spot): DOMRect {
    const box = this.element.getBoundingClientRect();
    const { size, headerW, headerH } = this.geometry;
    const x = box.left + headerW + spot.column * size.w - this.element.scrollLeft;
    const y = box.top + headerH + spot.row * size.h - this.element.scrollTop;
    return new DOMRect(x, y, size.w, size.h);
  }

  private spotOf(event: MouseEvent): Spot | null {
    const box = this.element.getBoundingClientRect();
    const { scrollLeft, scrollTop } = this.element;
    return spotAt(this.geometry, event.clientX - box.left, event.clientY - box.top, scrollLeft, scrollTop);
  }

  private pointed(event: PointerEvent): void {
    // The browser also says "moved" when the grid scrolls below a mouse that lies still: the keyboard keeps its cell.
    const { clientX: x, clientY: y } = event;
    const still = this.byKeyboard && (!this.mouse || Math.hypot(x - this.mouse.x, y - this.mouse.y) < STILL_PX);
    if (!still || !this.mouse) this.mouse = { x, y };
    if (still || this.card.pinned || event.pointerType === "touch") return;
    const spot = this.spotOf(event);
    if (spot?.row === this.spot?.row && spot?.column === this.spot?.column) return;
    this.byKeyboard = false;
    this.light(spot);
  }

  private clicked(event: MouseEvent): void {
    const spot = this.spotOf(event);
    const same = spot?.row === this.spot?.row && spot?.column === this.spot?.column;
    if (!spot || (same && this.card.pinned)) return this.dismiss();
    this.byKeyboard = false;
    this.light(spot);
    this.card.pin();
  }

  /** The mouse is elsewhere, perhaps only because the card has opened below it. */
  private strayed(): void {
    if (!this.byKeyboard) this.left();
  }

  private left(): void {
    if (!this.card.pinned) this.light(null);
  }

  private scrolled(): void {
    if (!this.byKeyboard) this.left();
    this.requestPaint();
  }

  private dismiss(): void {
    this.card.hide();
    this.byKeyboard = false;
    this.light(null);
  }

  private focused(): void {
    if (!this.element.matches(":focus-visible") || this.spot || !this.rows.length || !this.columns.length) return;
    this.walkTo({ row: 0, column: 0 });
  }

  private pressed(event: KeyboardEvent): void {
    if (event.key === "Escape") return this.dismiss();
    const pair = this.pair();
    if ((event.key === "Enter" || event.key === " ") && pair) {
      this.card.pin();
    } else {
      const next = this.step(event);
      if (!next) return;
      this.walkTo(next);
    }
    event.preventDefault();
  }

  private step(event: KeyboardEvent): Spot | null {
    const page = Math.max(1, Math.floor((this.element.clientHeight - this.geometry.headerH) / this.geometry.size.h) - 1);
    return stepFrom(this.spot, event.key, event.ctrlKey, this.rows.length, this.columns.length, page);
  }

  private walkTo(spot: Spot): void {
    this.byKeyboard = true;
    this.bringIntoView(spot);
    this.light(spot);
    this.describe();
  }

  private bringIntoView(spot: Spot): void {
    const { size, headerW, headerH } = this.geometry;
    const { element } = this;
    const x = spot.column * size.w;
    const y = spot.row * size.h;
    if (x < element.scrollLeft) element.scrollLeft = x;
    if (x + size.w > element.scrollLeft + element.clientWidth - headerW) element.scrollLeft = x + size.w - element.clientWidth + headerW;
    if (y < element.scrollTop) element.scrollTop = y;
    if (y + size.h > element.scrollTop + element.clientHeight - headerH) element.scrollTop = y + size.h - element.clientHeight + headerH;
  }

  /** Says agent, target, state and last value of the focused cell. */
  private describe(): void {
    const pair = this.pair();
    if (!pair || !this.spot) return;
    const { agents, targets } = this.picture.layout;
    const agent = agents[pair.agentIndex];
    const target = targets[pair.targetIndex];
    const cell = pair.agentIndex * targets.length + pair.targetIndex;
    const state = STATES[this.picture.state[cell] ?? 0];
    const text = `${agent?.hostname} to ${target?.name}: ${state?.label}, ${lastInWords(this.picture.rtt[cell] ?? -2)}`;
    this.columnName.textContent = target?.name ?? "";
    this.rowName.textContent = agent?.hostname ?? "";
    this.activeCell.textContent = `${state?.label}, ${lastInWords(this.picture.rtt[cell] ?? -2)}`;
    this.activeRow.setAttribute("aria-rowindex", String(this.spot.row + 2));
    this.activeCell.setAttribute("aria-colindex", String(this.spot.column + 2));
    this.spoken.textContent = `${text}, last round ${ago(this.picture.lastRound[pair.agentIndex] ?? null)}`;
  }
}

function readZoom(): number | null {
  const saved = Number.parseInt(localStorage.getItem(ZOOM_KEY) ?? "", 10);
  return Number.isNaN(saved) ? null : saved;
}
