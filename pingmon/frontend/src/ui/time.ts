// Times and amounts in words. Local time is shown, UTC stands in the title on hover.
import { h } from "./dom";

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short", hour12: false });

export function clockTime(ms: number): string {
  return clock.format(ms);
}

export function duration(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  const min = Math.floor(s / 60);
  if (min < 60) return `${min} min`;
  const hours = Math.floor(min / 60);
  if (hours < 48) return min % 60 ? `${hours} h ${min % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

export function ago(ms: number | null): string {
  if (ms === null || ms <= 0) return "never";
  const passed = Date.now() - ms;
  return passed < 2000 ? "now" : `${duration(passed)} ago`;
}

/** Local date and time of unix seconds. */
export function dateTime(seconds: number): string {
  return day.format(seconds * 1000);
}

/** A <time> of unix seconds: "5 min ago", both clocks on hover. */
export function timeTag(seconds: number | null, text?: string): HTMLElement {
  const ms = (seconds ?? 0) * 1000;
  if (ms <= 0) return h("span", { class: "muted" }, "never");
  const utc = new Date(ms).toISOString().replace("T", " ").replace(/\.\d+Z/, " UTC");
  return h("time", { datetime: new Date(ms).toISOString(), title: `${day.format(ms)} local · ${utc}` }, text ?? ago(ms));
}

export function milliseconds(ms: number): string {
  if (ms < 10) return ms.toFixed(2);
  return ms < 100 ? ms.toFixed(1) : ms.toFixed(0);
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}
