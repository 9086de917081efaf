// The last hour of one pair as a small chart. Lost pings are red ticks at the foot; time without results stays empty,
// on a shaded ground where a round is missing or none was expected.
import uPlot from "uplot";
import type { MissingSpan, PairHistory } from "../types";
import { cssVar } from "../ui/dom";
import { clockTime, milliseconds } from "../ui/time";
import { isLost, toSeries } from "./summary";

export const HOUR_S = 3600;

export function drawChart(into: HTMLElement, history: PairHistory, missing: readonly MissingSpan[], nowS: number, readout: HTMLElement): uPlot {
  const lost = history.samples.filter(isLost).map((s) => s.timestamp);
  const line = cssVar("--chart");
  const axis = { stroke: cssVar("--muted"), grid: { stroke: cssVar("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const options: uPlot.Options = {
    width: into.clientWidth || 380,
    height: 150,
    padding: [8, 8, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { size: 6 }, y: false },
    scales: { x: { time: true, range: [nowS - HOUR_S, nowS] }, y: { range: (_u, _min, max) => [0, Math.max(1, (max || 1) * 1.15)] } },
    axes: [
      { ...axis, size: 26, space: 60, values: "{HH}:{mm}" },
      { ...axis, size: 46, space: 28, values: (_u, ticks) => ticks.map((tick) => `${tick} ms`) },
    ],
    series: [
      {},
      { stroke: line, width: 1.5, spanGaps: false, fill: cssVar("--chart-fill"), points: { show: history.samples.length < 40, size: 4, fill: line } },
    ],
    hooks: {
      drawClear: [(u) => shade(u, missing)],
      draw: [(u) => drawLost(u, lost)],
      setCursor: [(u) => showUnderCursor(u, readout)],
    },
  };
  return new uPlot(options, toSeries(history), into);
}

function shade(u: uPlot, missing: readonly MissingSpan[]): void {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.fillStyle = cssVar("--cell-stale");
  for (const span of missing) {
    const left = Math.max(bbox.left, u.valToPos(span.from, "x", true));
    const right = Math.min(bbox.left + bbox.width, u.valToPos(span.to, "x", true));
    if (right > left) ctx.fillRect(left, bbox.top, Math.max(right - left, 1), bbox.height);
  }
  ctx.restore();
}

function drawLost(u: uPlot, lost: readonly number[]): void {
  const { ctx, bbox } = u;
  const ratio = window.devicePixelRatio || 1;
  ctx.save();
  ctx.fillStyle = cssVar("--lost");
  for (const at of lost) {
    const x = u.valToPos(at, "x", true);
    if (x >= bbox.left) ctx.fillRect(x - ratio * 0.75, bbox.top + bbox.height - 18 * ratio, 1.5 * ratio, 18 * ratio);
  }
  ctx.restore();
}

function showUnderCursor(u: uPlot, readout: HTMLElement): void {
  const index = u.cursor.idx;
  const at = index === null || index === undefined ? undefined : u.data[0][index];
  if (at === undefined || (u.cursor.left ?? -1) < 0) {
    readout.textContent = "";
    return;
  }
  const ms = u.data[1]?.[index as number];
  readout.textContent = `${clockTime(at * 1000)} · ${ms === null || ms === undefined ? "lost" : `${milliseconds(ms)} ms`}`;
}
