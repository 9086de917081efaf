// The grid as a thing one can scroll, point at and walk through with the keyboard. Turns events into a lit cell and a
// card, and has the cell spoken.
import { h } from "../ui/dom";
import { onThemeChange } from "../ui/chrome";
import { Card } from "./card";
import { layOut, SIZES, spotAt, stepFrom, type Geometry, type Spot } from "./geometry";
import { Painter, rowTag } from "./painter";
import type { Pair, Path, Picture } from "./picture";
import { Spoken } from "./spoken";

const SCROLLBAR = 16;
const ZOOM_KEY = "pingmon.zoom";
/** less than a hand moves a mouse on purpose, more than the rounding of positions on dense screens */
const STILL_PX = 3;

export class GridView {
  readonly element = h("div", { class: "grid", id: "grid", tabindex: "0", role: "grid", "aria-label": "Round-trip times, agents by targets" });
  private readonly canvas = h("canvas", { "aria-hidden": "true" });
  private readonly space = h("div", { class: "grid-space", "aria-hidden": "true" });
  private readonly painter = new Painter(this.canvas);
  private readonly spoken: Spoken;
  private readonly card: Card;
  private geometry!: Geometry;
  private rows: number[] = [];
  private mouse: { x: number; y: number } | null = null;
  private columns: number[] = [];
  private spot: Spot | null = null;
  /** what `spot` shows, in words that outlive a change of rows and columns */
  private path: Path | null = null;
  private byKeyboard = false;
  private chosenSize: number | null = readZoom();
  private frame = 0;

  constructor(private readonly picture: Picture) {
    this.spoken = new Spoken(picture);
    this.element.append(h("div", { class: "grid-window" }, this.canvas), this.space, this.spoken.rows);
    this.element.setAttribute("aria-activedescendant", this.spoken.cellId);
    this.card = new Card(picture, () => this.dismiss());
    this.listen();
  }

  get announcer(): HTMLElement {
    return this.spoken.announcer;
  }

  /** Which agents and targets to show, by index into the layout. Who walks by keyboard or reads a pinned card stays at his path. */
  showOnly(rows: number[], columns: number[]): void {
    this.rows = rows;
    this.columns = columns;
    this.resize();
    const spot = this.byKeyboard || this.card.pinned ? this.spotOfPath() : null;
    if (!spot) return this.dismiss();
    if (this.byKeyboard) this.bringIntoView(spot);
    this.light(spot);
    this.describe();
  }

  /** Where the lit path stands in the rows and columns of now; null if it is gone or filtered away. */
  private spotOfPath(): Spot | null {
    const pair = this.path && this.picture.pairOf(this.path);
    const row = pair ? this.rows.indexOf(pair.agentIndex) : -1;
    const column = pair ? this.columns.indexOf(pair.targetIndex) : -1;
    return row < 0 || column < 0 ? null : { row, column };
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
    this.path = pair && this.picture.pathOf(pair);
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
    this.spoken.say(this.describe());
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

  /** Puts the lit cell where screen readers look; returns it in words. */
  private describe(): string {
    const pair = this.pair();
    return pair && this.spot ? this.spoken.show(pair, this.spot) : "";
  }
}

function readZoom(): number | null {
  const saved = Number.parseInt(localStorage.getItem(ZOOM_KEY) ?? "", 10);
  return Number.isNaN(saved) ? null : saved;
}
