// Draws the visible part of the grid: cells, numbers, and the two headers that stay put. Only what is on screen is
// touched, so 500 x 500 costs no more than a screenful. Knows no events.
import { cssVar } from "../ui/dom";
import type { Geometry, Spot } from "./geometry";
import { cellNumber } from "./number";
import type { LayoutAgent, LayoutTarget, Picture } from "./picture";
import { inks, makeSprites, NUMBER_MIN_WIDTH, type Ink } from "./sprites";
import { BAD, LOSSY, OK, SLOW, STALE } from "./states";

export interface Scene {
  picture: Picture;
  geometry: Geometry;
  rows: readonly number[];
  columns: readonly number[];
  scrollX: number;
  scrollY: number;
  viewW: number;
  viewH: number;
  lit: Spot | null;
  focused: boolean;
}

interface Window {
  firstRow: number;
  lastRow: number;
  firstColumn: number;
  lastColumn: number;
}

const FONT = '"Inter", system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif';

export class Painter {
  private readonly ctx: CanvasRenderingContext2D;
  private sprites: HTMLCanvasElement[] = [];
  private palette: Ink[] = [];
  private spriteKey = "";
  private colours = { ground: "", text: "", muted: "", line: "", lit: "", ring: "", good: "", warn: "" };
  private readonly shortened = new Map<string, string>();
  private ratio = 1;

  constructor(private readonly canvas: HTMLCanvasElement) {
    const ctx = canvas.getContext("2d", { alpha: false });
    if (!ctx) throw new Error("This browser cannot draw on a canvas.");
    this.ctx = ctx;
    this.takeTheme();
  }

  takeTheme(): void {
    this.palette = inks();
    this.spriteKey = "";
    this.colours = {
      ground: cssVar("--surface"),
      text: cssVar("--text"),
      muted: cssVar("--muted"),
      line: cssVar("--line"),
      lit: cssVar("--lit"),
      ring: cssVar("--ring"),
      good: cssVar("--good"),
      warn: cssVar("--warn"),
    };
  }

  /** Width of the widest of these names in the header font. */
  widest(names: readonly string[]): number {
    this.ctx.font = `500 13px ${FONT}`;
    return names.reduce((width, name) => Math.max(width, this.ctx.measureText(name).width), 0);
  }

  paint(scene: Scene): void {
    this.fitCanvas(scene);
    const { ctx } = this;
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    ctx.fillStyle = this.colours.ground;
    ctx.fillRect(0, 0, scene.viewW, scene.viewH);
    const seen = this.window(scene);
    this.paintCells(scene, seen);
    this.paintColumnHeader(scene, seen);
    this.paintRowHeader(scene, seen);
    this.paintCorner(scene);
    this.paintRing(scene);
  }

  private fitCanvas(scene: Scene): void {
    this.ratio = window.devicePixelRatio || 1;
    const width = Math.round(scene.viewW * this.ratio);
    const height = Math.round(scene.viewH * this.ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.canvas.style.width = `${scene.viewW}px`;
      this.canvas.style.height = `${scene.viewH}px`;
    }
    const key = `${scene.geometry.sizeIndex}@${this.ratio}`;
    if (key === this.spriteKey) return;
    this.sprites = makeSprites(scene.geometry.size, this.ratio, this.palette);
    this.spriteKey = key;
  }

  private window({ geometry: g, scrollX, scrollY, viewW, viewH, rows, columns }: Scene): Window {
    return {
      firstRow: Math.max(0, Math.floor(scrollY / g.size.h)),
      lastRow: Math.min(rows.length, Math.ceil((scrollY + viewH - g.headerH) / g.size.h)),
      firstColumn: Math.max(0, Math.floor(scrollX / g.size.w)),
      lastColumn: Math.min(columns.length, Math.ceil((scrollX + viewW - g.headerW) / g.size.w)),
    };
  }

  private paintCells(scene: Scene, seen: Window): void {
    const { geometry: g, picture, rows, columns } = scene;
    const stride = picture.layout.targets.length;
    const numbers = g.size.w >= NUMBER_MIN_WIDTH;
    this.ctx.textAlign = "center";
    this.ctx.textBaseline = "middle";
    this.ctx.font = `500 ${g.size.w >= 88 ? 13.5 : g.size.w >= 64 ? 12.5 : 10.5}px ${FONT}`;
    for (let r = seen.firstRow; r < seen.lastRow; r++) {
      const base = (rows[r] ?? 0) * stride;
      const y = g.headerH + r * g.size.h - scene.scrollY;
      for (let c = seen.firstColumn; c < seen.lastColumn; c++) {
        const cell = base + (columns[c] ?? 0);
        const x = g.headerW + c * g.size.w - scene.scrollX;
        const state = picture.state[cell] ?? 0;
        const sprite = this.sprites[state];
        if (sprite) this.ctx.drawImage(sprite, x, y, g.size.w, g.size.h);
        if (numbers) this.paintNumber(picture.rtt[cell] ?? -2, state, x, y, g);
      }
    }
  }

  private paintNumber(us: number, state: number, x: number, y: number, g: Geometry): void {
    if (state !== OK && state !== SLOW && state !== BAD && state !== LOSSY && state !== STALE) return;
    if (us < 0 && state === STALE) return;
    this.ctx.fillStyle = this.palette[state]?.text ?? "";
    const text = us < 0 ? "lost" : cellNumber(us, g.size.w);
    this.ctx.fillText(text, x + g.size.w / 2, y + g.size.h / 2 + 0.5);
  }

  private paintColumnHeader(scene: Scene, seen: Window): void {
    const { geometry: g, picture, columns } = scene;
    const { ctx } = this;
    ctx.fillStyle = this.colours.ground;
    ctx.fillRect(g.headerW, 0, scene.viewW, g.headerH);
    ctx.save();
    ctx.beginPath();
    ctx.rect(g.headerW, 0, scene.viewW - g.headerW, g.headerH);
    ctx.clip();
    for (let c = seen.firstColumn; c < seen.lastColumn; c++) {
      const target = picture.layout.targets[columns[c] ?? -1];
      if (!target) continue;
      const x = g.headerW + c * g.size.w - scene.scrollX;
      const lit = scene.lit?.column === c;
      if (lit) this.fill(this.colours.lit, x, 0, g.size.w, g.headerH);
      if (g.size.w >= 12 || lit || c % 2 === 0) this.paintColumnName(target, x, g, lit);
    }
    ctx.restore();
  }

  private paintColumnName(target: LayoutTarget, x: number, g: Geometry, lit: boolean): void {
    const { ctx } = this;
    ctx.fillStyle = lit ? this.colours.text : target.agent_id === null ? this.colours.text : this.colours.muted;
    if (!g.upright) {
      ctx.textAlign = "center";
      ctx.textBaseline = "alphabetic";
      ctx.font = `500 13px ${FONT}`;
      ctx.fillText(this.shorten(target.name, g.size.w - 10), x + g.size.w / 2, g.headerH - 22);
      ctx.font = `11px ${FONT}`;
      ctx.fillStyle = this.colours.muted;
      ctx.fillText(this.shorten(target.address, g.size.w - 8), x + g.size.w / 2, g.headerH - 7);
      return;
    }
    ctx.save();
    ctx.translate(x + g.size.w / 2, g.headerH - 8);
    ctx.rotate(-Math.PI / 2);
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    ctx.font = `500 ${g.size.w < 16 ? 10 : 12.5}px ${FONT}`;
    ctx.fillText(this.shorten(target.name, g.headerH - 16), 0, 0.5);
    ctx.restore();
  }

  private paintRowHeader(scene: Scene, seen: Window): void {
    const { geometry: g, picture, rows } = scene;
    const { ctx } = this;
    this.fill(this.colours.ground, 0, g.headerH, g.headerW, scene.viewH);
    ctx.save();
    ctx.beginPath();
    ctx.rect(0, g.headerH, g.headerW, scene.viewH - g.headerH);
    ctx.clip();
    for (let r = seen.firstRow; r < seen.lastRow; r++) {
      const agent = picture.layout.agents[rows[r] ?? -1];
      if (!agent) continue;
      const y = g.headerH + r * g.size.h - scene.scrollY;
      const lit = scene.lit?.row === r;
      if (lit) this.fill(this.colours.lit, 0, y, g.headerW, g.size.h);
      if (g.size.h >= 12 || lit || r % 2 === 0) this.paintRowName(agent, rowTag(agent, picture.disturbed.has(agent.id)), y, g);
    }
    ctx.restore();
  }

  private paintRowName(agent: LayoutAgent, tag: string, y: number, g: Geometry): void {
    const { ctx } = this;
    const middle = y + g.size.h / 2 + 0.5;
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    const font = g.size.h < 16 ? 10 : 13;
    ctx.beginPath();
    ctx.arc(12, middle - 0.5, g.size.h < 16 ? 2.5 : 4, 0, 2 * Math.PI);
    ctx.fillStyle = ctx.strokeStyle = agent.state === "hold" ? this.colours.warn : agent.connected ? this.colours.good : this.colours.muted;
    ctx.lineWidth = 1.5;
    if (agent.connected && agent.state !== "hold") ctx.fill();
    else ctx.stroke();
    ctx.font = `11px ${FONT}`;
    ctx.fillStyle = this.colours.muted;
    const tagWidth = tag && g.size.h >= 18 ? ctx.measureText(tag).width + 10 : 0;
    if (tagWidth) ctx.fillText(tag, g.headerW - tagWidth, middle);
    ctx.font = `500 ${font}px ${FONT}`;
    ctx.fillStyle = this.colours.text;
    ctx.fillText(this.shorten(agent.hostname, g.headerW - 30 - tagWidth), 23, middle);
  }

  private paintCorner({ geometry: g, viewW, viewH, scrollX, scrollY }: Scene): void {
    const { ctx } = this;
    this.fill(this.colours.ground, 0, 0, g.headerW, g.headerH);
    ctx.font = `11px ${FONT}`;
    ctx.fillStyle = this.colours.muted;
    ctx.textBaseline = "alphabetic";
    ctx.textAlign = "left";
    ctx.fillText("agents ↓", 8, g.headerH - 8);
    ctx.textAlign = "right";
    ctx.fillText("targets →", g.headerW - 8, 16);
    ctx.fillStyle = this.colours.line;
    if (scrollY > 0) ctx.fillRect(0, g.headerH - 1, viewW, 1);
    if (scrollX > 0) ctx.fillRect(g.headerW - 1, 0, 1, viewH);
  }

  private paintRing({ geometry: g, lit, focused, scrollX, scrollY, viewW, viewH }: Scene): void {
    if (!lit) return;
    const { ctx } = this;
    ctx.save();
    ctx.beginPath();
    ctx.rect(g.headerW - 2, g.headerH - 2, viewW, viewH);
    ctx.clip();
    ctx.lineWidth = focused ? 3 : 2;
    ctx.strokeStyle = focused ? this.colours.ring : this.colours.text;
    ctx.beginPath();
    const x = g.headerW + lit.column * g.size.w - scrollX;
    const y = g.headerH + lit.row * g.size.h - scrollY;
    ctx.roundRect(x - 0.5, y - 0.5, g.size.w + 1, g.size.h + 1, g.size.w >= 28 ? 5 : 2);
    ctx.stroke();
    ctx.restore();
  }

  private fill(colour: string, x: number, y: number, w: number, h: number): void {
    this.ctx.fillStyle = colour;
    this.ctx.fillRect(x, y, w, h);
  }

  private shorten(text: string, width: number): string {
    const key = `${Math.round(width)}|${this.ctx.font}|${text}`;
    const known = this.shortened.get(key);
    if (known !== undefined) return known;
    let fitting = text;
    while (fitting.length > 1 && this.ctx.measureText(fitting).width > width) fitting = `${fitting.replace(/…$/, "").slice(0, -1)}…`;
    if (this.shortened.size > 5000) this.shortened.clear();
    this.shortened.set(key, fitting);
    return fitting;
  }
}

/** What stands behind an agent's name when it is not simply measuring. */
export function rowTag(agent: LayoutAgent, disturbed = false): string {
  if (agent.state === "hold") return "hold";
  if (!agent.connected) return "off";
  return disturbed ? "disturbed" : "";
}
