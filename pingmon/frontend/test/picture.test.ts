// The picture keeps up with the stream, notices what it missed, and never mixes up rows.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Picture, type Layout, unpackPast } from "../src/grid/picture";

function layout(version: number, agents: string[], targets: number[]): Layout {
  return {
    version,
    interval_s: 5,
    thresholds: { warn_ms: 50, bad_ms: 200 },
    agents: agents.map((id) => ({ id, hostname: id, state: "approved", connected: true })),
    targets: targets.map((id) => ({ id, name: `t${id}`, address: "192.0.2.1", agent_id: null })),
  };
}

function bytes(rtt: number[], state: number[]): ArrayBuffer {
  const data = new ArrayBuffer(rtt.length * 5);
  const view = new DataView(data);
  rtt.forEach((us, i) => view.setInt32(i * 4, us, true));
  state.forEach((code, i) => view.setUint8(rtt.length * 4 + i, code));
  return data;
}

function packed(head: object, cells: ArrayBuffer): ArrayBuffer {
  const text = new TextEncoder().encode(JSON.stringify(head));
  const data = new Uint8Array(4 + text.length + cells.byteLength);
  new DataView(data.buffer).setUint32(0, text.length, true);
  data.set(text, 4);
  data.set(new Uint8Array(cells), 4 + text.length);
  return data.buffer;
}

function joined(): Picture {
  const picture = new Picture();
  picture.setLayout(layout(1, ["a", "b"], [7, 8]));
  const all = { version: 1, seq: 10, now_ms: 0, rows: [[0, 1000], [1, 2000]] as [number, number][] };
  assert.equal(picture.apply(all, bytes([1, 2, 3, -1], [1, 1, 2, 5])), "applied");
  return picture;
}

test("rows land where their index says", () => {
  const picture = joined();
  const one = { version: 1, seq: 11, now_ms: 0, rows: [[1, 3000]] as [number, number][] };
  assert.equal(picture.apply(one, bytes([30, 40], [3, 4])), "applied");
  assert.deepEqual([...picture.rtt], [1, 2, 30, 40]);
  assert.deepEqual([...picture.state], [1, 1, 3, 4]);
  assert.deepEqual(picture.lastRound, [1000, 3000]);
});

test("a number left out is a gap, one seen before is ignored", () => {
  const picture = joined();
  const meta = (seq: number): Parameters<Picture["apply"]>[0] => ({ version: 1, seq, now_ms: 0, rows: [[0, 1]] });
  assert.equal(picture.apply(meta(10), bytes([9, 9], [1, 1])), "ignored");
  assert.equal(picture.apply(meta(12), bytes([9, 9], [1, 1])), "gap");
  assert.deepEqual([...picture.rtt], [1, 2, 3, -1]);
});

test("after a gap only everything at once will do", () => {
  const picture = joined();
  picture.expectEverything();
  assert.equal(picture.apply({ version: 1, seq: 11, now_ms: 0, rows: [[0, 1]] }, bytes([9, 9], [1, 1])), "gap");
  const all = { version: 1, seq: 11, now_ms: 0, rows: [[0, 1], [1, 1]] as [number, number][] };
  assert.equal(picture.apply(all, bytes([5, 6, 7, 8], [1, 1, 1, 1])), "applied");
  assert.equal(picture.apply({ version: 1, seq: 12, now_ms: 0, rows: [[0, 1]] }, bytes([9, 9], [1, 1])), "applied");
});

test("rows of another layout or of a wrong size are never drawn", () => {
  const picture = joined();
  assert.equal(picture.apply({ version: 2, seq: 11, now_ms: 0, rows: [[0, 1]] }, bytes([9, 9], [1, 1])), "gap");
  assert.equal(picture.apply({ version: 0, seq: 11, now_ms: 0, rows: [[0, 1]] }, bytes([9, 9], [1, 1])), "ignored");
  assert.equal(picture.apply({ version: 1, seq: 11, now_ms: 0, rows: [[0, 1]] }, bytes([9], [1])), "gap");
  assert.deepEqual([...picture.rtt], [1, 2, 3, -1]);
});

test("a new layout keeps the values of pairs that stay, wherever they move", () => {
  const picture = joined();
  picture.setLayout(layout(2, ["new", "b", "a"], [8, 9, 7]));
  assert.deepEqual([...picture.rtt], [-2, -2, -2, -1, -2, 3, 2, -2, 1]);
  assert.deepEqual([...picture.state], [0, 0, 0, 5, 0, 2, 1, 0, 1]);
  assert.deepEqual(picture.lastRound, [null, 2000, 1000]);
  assert.deepEqual(picture.counts(), [5, 2, 1, 0, 0, 1, 0, 0]);
});

test("an earlier instant replaces everything, and the present comes back with a layout and all rows", () => {
  const picture = joined();
  const then = layout(1, ["b", "c"], [8, 9]);
  const agents = then.agents.map((agent, i) => ({ ...agent, last_round: i ? null : 900, disturbed: i === 0 }));
  picture.showPast(unpackPast(packed({ ...then, agents, at: 1000 }, bytes([5, -5, -2, -2], [1, 6, 0, 0]))));
  assert.deepEqual([...picture.rtt], [5, -5, -2, -2]);
  assert.deepEqual([...picture.state], [1, 6, 0, 0]);
  assert.deepEqual(picture.lastRound, [900_000, null]);
  assert.deepEqual([...picture.disturbed], ["b"]);
  assert.equal(picture.asOfMs, 1_000_000);
  const part = { version: 1, seq: 11, now_ms: 0, rows: [[0, 1]] as [number, number][] };
  assert.equal(picture.apply(part, bytes([9, 9], [1, 1])), "gap");
  picture.setLayout(layout(1, ["a", "b"], [7, 8]));
  assert.equal(picture.asOfMs, null);
  const all = { version: 1, seq: 12, now_ms: 0, rows: [[0, 1], [1, 1]] as [number, number][] };
  assert.equal(picture.apply(all, bytes([5, 6, 7, 8], [1, 1, 1, 1])), "applied");
});

test("a path is found again where it stands now", () => {
  const picture = joined();
  const path = picture.pathOf({ agentIndex: 1, targetIndex: 0 });
  assert.deepEqual(path, { agentId: "b", targetId: 7 });
  picture.setLayout(layout(2, ["c", "a", "b"], [8, 9, 7]));
  assert.deepEqual(path && picture.pairOf(path), { agentIndex: 2, targetIndex: 2 });
  picture.setLayout(layout(3, ["c"], [7]));
  assert.equal(path && picture.pairOf(path), null);
});
