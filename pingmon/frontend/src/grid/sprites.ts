// One small picture per cell state: colour and shape together, so that no reader needs colour to tell them apart.
// Colours come from the style sheet; drawn once per size and theme, then copied onto the grid.
import { cssVar } from "../ui/dom";
import { BAD, DOWN, ERROR, LOSSY, NONE, SLOW, STALE, STATES } from "./states";

export interface CellSize {
  w: number;
  h: number;
}

export interface Ink {
  fill: string;
  text: string;
  mark: string;
}

export const NUMBER_MIN_WIDTH = 28;

export function inks(): Ink[] {
  return STATES.map(({ word }) => ({
    fill: cssVar(`--cell-${word}`),
    text: cssVar(`--cell-${word}-text`),
    mark: cssVar(`--cell-${word}-mark`),
  }));
}

export function makeSprites(size: CellSize, ratio: number, palette: Ink[]): HTMLCanvasElement[] {
  return palette.map((ink, state) => {
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(size.w * ratio);
    canvas.height = Math.round(size.h * ratio);
    const ctx = canvas.getContext("2d");
    if (!ctx) throw new Error("This browser cannot draw on a canvas.");
    ctx.scale(ratio, ratio);
    drawCell(ctx, state, ink, size);
    return canvas;
  });
}

function drawCell(ctx: CanvasRenderingContext2D, state: number, ink: Ink, size: CellSize): void {
  const gap = size.w >= 28 ? 2 : 1;
  const box = { x: gap / 2, y: gap / 2, w: size.w - gap, h: size.h - gap };
  if (state !== NONE) {
    ctx.beginPath();
    ctx.roundRect(box.x, box.y, box.w, box.h, size.w >= 28 ? 4 : size.w >= 16 ? 2 : 0);
    ctx.fillStyle = ink.fill;
    ctx.fill();
    ctx.save();
    ctx.clip();
  } else {
    ctx.save();
  }
  ctx.fillStyle = ink.mark;
  ctx.strokeStyle = ink.mark;
  drawMark(ctx, state, size, box);
  ctx.restore();
}

interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

function drawMark(ctx: CanvasRenderingContext2D, state: number, size: CellSize, box: Box): void {
  const roomy = size.w >= NUMBER_MIN_WIDTH;
  const cx = size.w / 2;
  const cy = size.h / 2;
  const r = Math.min(size.w, size.h) * 0.24;
  if (state === NONE) dot(ctx, cx, cy, Math.max(0.75, Math.min(2, r / 2)));
  else if (state === SLOW || state === BAD) triangle(ctx, state, roomy, size, box);
  else if (state === LOSSY) halfFilled(ctx, roomy, box);
  else if (state === DOWN) cross(ctx, cx, cy, Math.min(r, 7), Math.max(1.25, Math.min(2.5, r / 2)));
  else if (state === ERROR) exclamation(ctx, cx, cy, Math.min(r * 1.3, 8));
  else if (state === STALE) hatch(ctx, size);
}

function dot(ctx: CanvasRenderingContext2D, x: number, y: number, r: number): void {
  ctx.beginPath();
  ctx.arc(x, y, r, 0, 2 * Math.PI);
  ctx.fill();
}

/** A flag in the corner: small for slow, larger for very slow. */
function triangle(ctx: CanvasRenderingContext2D, state: number, roomy: boolean, size: CellSize, box: Box): void {
  const scale = state === BAD ? 1 : 0.6;
  const side = roomy ? 12 * scale : Math.min(size.w, size.h) * scale * 0.8;
  ctx.beginPath();
  ctx.moveTo(box.x + box.w, box.y);
  ctx.lineTo(box.x + box.w - side, box.y);
  ctx.lineTo(box.x + box.w, box.y + side);
  ctx.fill();
}

function halfFilled(ctx: CanvasRenderingContext2D, roomy: boolean, box: Box): void {
  if (!roomy) {
    ctx.fillRect(box.x, box.y + box.h / 2, box.w, box.h / 2);
    return;
  }
  // a broken line at the foot: parts of it are missing, as parts of the pings are
  const step = box.w / 7;
  for (let i = 0; i < 7; i += 2) ctx.fillRect(box.x + i * step, box.y + box.h - 4, step, 4);
}

function cross(ctx: CanvasRenderingContext2D, x: number, y: number, r: number, width: number): void {
  ctx.lineWidth = width;
  ctx.lineCap = "round";
  ctx.beginPath();
  ctx.moveTo(x - r, y - r);
  ctx.lineTo(x + r, y + r);
  ctx.moveTo(x + r, y - r);
  ctx.lineTo(x - r, y + r);
  ctx.stroke();
}

function exclamation(ctx: CanvasRenderingContext2D, x: number, y: number, r: number): void {
  const width = Math.max(1.25, r * 0.35);
  ctx.fillRect(x - width / 2, y - r, width, r * 1.3);
  ctx.fillRect(x - width / 2, y + r * 0.6, width, width);
}

function hatch(ctx: CanvasRenderingContext2D, size: CellSize): void {
  const step = size.w >= 16 ? 6 : 4;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (let x = -size.h; x < size.w; x += step) {
    ctx.moveTo(x, size.h);
    ctx.lineTo(x + size.h, 0);
  }
  ctx.stroke();
}
