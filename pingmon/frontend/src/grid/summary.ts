// The last hour of one pair in figures, and as the series a chart draws. Pure arithmetic.
import type { PairHistory, Sample } from "../types";
import { milliseconds } from "../ui/time";

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
