// The last hour of one pair as a small chart. Lost pings are red ticks at the foot; time without results stays empty.
import uPlot from "uplot";
import type { PairHistory, Sample } from "../types";
import { cssVar } from "../ui/dom";
import { clockTime, milliseconds } from "../ui/time";

const HOUR_S = 3600;

export interface Summary {
  current: string;
  median: string;
  max: string;
  loss: string;
  measured: number;
}

export function isLost(sample: Sample): boolean {
  return sample.status === "timeout" || sample.status === "unreachable";
}

export function summarise(samples: readonly Sample[]): Summary {
  const rtts = samples.flatMap((s) => (s.rtt_ms === null ? [] : [s.rtt_ms])).sort((a, b) => a - b);
  const lost = samples.filter(isLost).length;
  const asked = rtts.length + lost;
  const last = samples[samples.length - 1];
  const middle = rtts.length / 2;
  const median = rtts.length % 2 ? rtts[Math.floor(middle)] : ((rtts[middle - 1] ?? 0) + (rtts[middle] ?? 0)) / 2;
  const show = (ms: number | undefined): string => (rtts.length && ms !== undefined ? `${milliseconds(ms)} ms` : "–");
  return {
    current: !last ? "–" : last.rtt_ms !== null ? `${milliseconds(last.rtt_ms)} ms` : last.status,
    median: show(median),
    max: show(rtts[rtts.length - 1]),
    loss: asked ? `${percent(lost / asked)} %` : "–",
    measured: asked,
  };
}

function percent(share: number): string {
  const value = share * 100;
  if (value === 0 || value === 100) return value.toFixed(0);
  return value < 0.1 ? "<0.1" : value.toFixed(1);
}

/** Inserts an empty point wherever rounds are missing, so that the line never bridges time nobody measured. */
export function toSeries(history: PairHistory): [number[], (number | null)[]] {
  const xs: number[] = [];
  const ys: (number | null)[] = [];
  let before = 0;
  for (const sample of history.samples) {
    if (before && sample.timestamp - before > history.interval_s * 2.5) {
      xs.push(before + history.interval_s);
      ys.push(null);
    }
    xs.push(sample.timestamp);
    ys.push(sample.rtt_ms);
    before = sample.timestamp;
  }
  return [xs, ys];
}

export function drawChart(into: HTMLElement, history: PairHistory, nowS: number, readout: HTMLElement): uPlot {
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
      draw: [(u) => drawLost(u, lost)],
      setCursor: [(u) => showUnderCursor(u, readout)],
    },
  };
  return new uPlot(options, toSeries(history), into);
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
