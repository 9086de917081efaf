// Numbers and lists as people read and write them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseList } from "../src/admin/paste";
import { spellProbe } from "../src/admin/probe";
import { layOut, spotAt, stepFrom, type Fit } from "../src/grid/geometry";
import { gapLines, missingSpans } from "../src/grid/gaps";
import { cellNumber } from "../src/grid/number";
import { summarise, toSeries } from "../src/grid/summary";
import type { Sample } from "../src/types";

const ok = (timestamp: number, rtt_ms: number): Sample => ({ timestamp, rtt_ms, status: "ok" });
const bad = (timestamp: number, status: Sample["status"]): Sample => ({ timestamp, rtt_ms: null, status });

test("loss counts what was asked, not what was never sent", () => {
  const summary = summarise([ok(0, 10), bad(5, "timeout"), bad(10, "unreachable"), bad(15, "error"), ok(20, 30)]);
  assert.deepEqual(summary, { current: "30.0 ms", median: "20.0 ms", max: "30.0 ms", loss: "50.0 %", measured: 4 });
});

test("rare loss is not rounded away, and nothing is not zero", () => {
  const many = Array.from({ length: 2000 }, (_, i) => (i === 7 ? bad(i, "timeout") : ok(i, 1)));
  assert.equal(summarise(many).loss, "<0.1 %");
  assert.deepEqual(summarise([]), { current: "–", median: "–", max: "–", loss: "–", measured: 0 });
});

test("gaps say why, newest first, and a seam between two of one reason does not show", () => {
  const gap = (from: number, to: number, reason: string) => ({ from, to, rounds: (to - from) / 5, reason, text: `because ${reason}` });
  const account = { expected: 0, received: 0, late: 0, missing: 0, gaps: [gap(10, 20, "a"), gap(20, 30, "a"), gap(40, 45, "b")], not_expected: [gap(0, 10, "c")] };
  const spans = missingSpans(account);
  assert.deepEqual(
    gapLines(spans, (ms) => `${ms / 1000}`),
    ["no data 40–45: because b", "no data 10–30: because a", "no data 0–10: because c"],
  );
  assert.equal(spans[1]?.rounds, 4);
  const many = Array.from({ length: 6 }, (_, i) => gap(i * 10, i * 10 + 5, "a"));
  assert.equal(gapLines(many, String).at(-1), "and 2 earlier gaps");
  assert.deepEqual(gapLines([], String), []);
});

test("time without rounds is a hole in the line", () => {
  const [xs, ys] = toSeries({ agent: "a", target: "t", interval_s: 5, samples: [ok(0, 1), ok(5, 2), ok(60, 3)] });
  assert.deepEqual(xs, [0, 5, 10, 60]);
  assert.deepEqual(ys, [1, 2, null, 3]);
});

test("a cell's number has the digits its width has room for", () => {
  assert.deepEqual([310, 1234, 45_678, 228_400, 12_345_000].map((us) => cellNumber(us, 116)), ["0.31", "1.23", "45.7", "228", "12 s"]);
  assert.deepEqual([310, 1234, 45_678, 228_400, 12_345_000].map((us) => cellNumber(us, 30)), ["0.3", "1.2", "46", "228", "12s"]);
});

const fit = (rows: number, columns: number, viewW: number, viewH: number): Fit => ({
  rows, columns, viewW, viewH, longestRow: 90, longestColumn: 80, chosen: null,
});

test("few cells are large, many are small, and what fits is never cut", () => {
  const few = layOut(fit(5, 8, 1300, 700));
  const many = layOut(fit(500, 500, 1300, 700));
  assert.equal(few.size.w, 116);
  assert.equal(many.size.w, 12);
  for (const [rows, columns] of [[10, 10], [20, 30], [40, 60]] as const) {
    const geometry = layOut(fit(rows, columns, 1300, 700));
    assert.ok(geometry.width <= 1300, `${rows} x ${columns}`);
  }
});

test("a point finds the cell that is drawn there, also when scrolled", () => {
  const g = layOut(fit(500, 500, 1300, 700));
  assert.deepEqual(spotAt(g, g.headerW + 1, g.headerH + 1, 0, 0), { row: 0, column: 0 });
  assert.deepEqual(spotAt(g, g.headerW + 1, g.headerH + 1, 12 * 40, 12 * 7), { row: 7, column: 40 });
  assert.equal(spotAt(g, g.headerW - 1, 300, 0, 0), null);
  assert.equal(spotAt(g, g.width + 5, g.headerH + 1, 0, 0), null);
});

test("keys walk within the grid and never out of it", () => {
  const at = { row: 1, column: 0 };
  const go = (key: string, ctrl = false): unknown => stepFrom(at, key, ctrl, 3, 4, 10);
  assert.deepEqual(go("ArrowLeft"), { row: 1, column: 0 });
  assert.deepEqual(go("ArrowRight"), { row: 1, column: 1 });
  assert.deepEqual(go("PageDown"), { row: 2, column: 0 });
  assert.deepEqual(go("End"), { row: 1, column: 3 });
  assert.deepEqual(go("End", true), { row: 2, column: 3 });
  assert.equal(go("x"), null);
  assert.deepEqual(stepFrom(null, "ArrowDown", false, 3, 4, 10), { row: 0, column: 0 });
  assert.equal(stepFrom(null, "ArrowDown", false, 0, 4, 10), null);
});

test("a pasted list takes names with spaces, bare addresses, commas, comments and settings", () => {
  const text = "core router Berlin 192.0.2.1\n\n# nothing\n192.0.2.2\ndns,\t192.0.2.53 # quick\nv6 2001:db8::1 count=3 df=true,source=192.0.2.9\n";
  assert.deepEqual(parseList(text), [
    { name: "core router Berlin", address: "192.0.2.1", probe: {} },
    { name: "192.0.2.2", address: "192.0.2.2", probe: {} },
    { name: "dns", address: "192.0.2.53", probe: {} },
    { name: "v6", address: "2001:db8::1", probe: { count: 3, df: true, source: "192.0.2.9" } },
  ]);
  assert.equal(spellProbe({ count: 3, df: true }), "count=3 df=true");
});
