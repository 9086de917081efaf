// Why there is nothing to see: the gaps of a path in words, newest first. "Was it down, or did we not look?"
import type { Completeness, MissingSpan } from "../types";
import { plural } from "../ui/time";

const MOST = 4;

/** Every span in which nothing came, in order of time, with the seam between two spans of one reason closed. */
export function missingSpans(account: Completeness): MissingSpan[] {
  const all = [...account.gaps, ...account.not_expected].sort((a, b) => a.from - b.from);
  const joined: MissingSpan[] = [];
  for (const span of all) {
    const last = joined.at(-1);
    if (last && last.reason === span.reason && last.to >= span.from) joined[joined.length - 1] = { ...last, to: span.to, rounds: last.rounds + span.rounds };
    else joined.push(span);
  }
  return joined;
}

/** "no data 12:03–12:19: the server was away", the newest ones; `clock` writes unix ms. */
export function gapLines(spans: readonly MissingSpan[], clock: (ms: number) => string): string[] {
  const lines = spans.slice(-MOST).reverse().map((span) => `no data ${clock(span.from * 1000)}–${clock(span.to * 1000)}: ${span.text}`);
  const rest = spans.length - MOST;
  return rest > 0 ? [...lines, `and ${plural(rest, "earlier gap")}`] : lines;
}
