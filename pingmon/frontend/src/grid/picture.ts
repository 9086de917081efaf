// The newest value and state of every pair, as the server sent it. Applies layouts and binary rows; knows no canvas, no socket.

export interface LayoutAgent {
  id: string;
  hostname: string;
  state: string;
  connected: boolean;
}

export interface LayoutTarget {
  id: number;
  name: string;
  address: string;
  agent_id: string | null;
}

export interface Layout {
  version: number;
  interval_s: number;
  /** why nothing new is kept, in a sentence for people; null while all is well */
  trouble?: string | null;
  thresholds: { warn_ms: number; bad_ms: number };
  agents: LayoutAgent[];
  targets: LayoutTarget[];
}

export interface RowsMeta {
  version: number;
  seq: number;
  now_ms: number;
  rows: [agentIndex: number, lastRoundMs: number | null, disturbed?: boolean][];
}

/** /api/v1/grid?at=, unpacked; `at` and `last_round` are unix seconds, `rtt` and `state` as in Picture */
export interface PastPicture extends Layout {
  at: number;
  agents: (LayoutAgent & { last_round: number | null; disturbed: boolean })[];
  rtt: Int32Array<ArrayBuffer>;
  state: Uint8Array<ArrayBuffer>;
}

/** Takes a packed picture apart (docs/wire.md): length of the head, head, values, states. */
export function unpackPast(bytes: ArrayBuffer): PastPicture {
  const view = new DataView(bytes);
  const start = 4 + view.getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, start - 4))) as Omit<PastPicture, "rtt" | "state">;
  const rtt = new Int32Array(head.agents.length * head.targets.length);
  for (let i = 0; i < rtt.length; i++) rtt[i] = view.getInt32(start + 4 * i, true);
  return { ...head, rtt, state: new Uint8Array(bytes.slice(start + 4 * rtt.length)) };
}

/** a cell by where it stands in the layout */
export interface Pair {
  agentIndex: number;
  targetIndex: number;
}

/** the same cell in words that outlive a change of rows and columns */
export interface Path {
  agentId: string;
  targetId: number;
}

export type Applied = "applied" | "ignored" | "gap";

export class Picture {
  layout: Layout = { version: -1, interval_s: 5, thresholds: { warn_ms: 50, bad_ms: 200 }, agents: [], targets: [] };
  rtt = new Int32Array(0);
  state = new Uint8Array(0);
  lastRound: (number | null)[] = [];
  /** agents whose host itself was late or starved in its last round: what it lost is no evidence */
  readonly disturbed = new Set<string>();
  /** server clock minus ours, so that ages are right on a host with a wrong clock */
  clockOffsetMs = 0;
  /** set while this is not the live picture, but the one of an instant */
  asOfMs: number | null = null;
  private seq: number | null = null;

  /** Takes a new set of rows and columns; values of pairs that stay are kept, so nothing flashes. */
  setLayout(layout: Layout): void {
    const old = { agents: this.layout.agents, targets: this.layout.targets, rtt: this.rtt, state: this.state, last: this.lastRound };
    const oldRow = new Map(old.agents.map((agent, i) => [agent.id, i]));
    const oldColumn = new Map(old.targets.map((target, i) => [target.id, i]));
    this.layout = layout;
    this.asOfMs = null;
    this.rtt = new Int32Array(layout.agents.length * layout.targets.length).fill(-2);
    this.state = new Uint8Array(this.rtt.length);
    const from = layout.targets.map((target) => oldColumn.get(target.id));
    this.lastRound = layout.agents.map((agent, row) => {
      const source = oldRow.get(agent.id);
      if (source === undefined) return null;
      this.copyRow(row, source * old.targets.length, from, old.rtt, old.state);
      return old.last[source] ?? null;
    });
  }

  pathOf({ agentIndex, targetIndex }: Pair): Path | null {
    const [agent, target] = [this.layout.agents[agentIndex], this.layout.targets[targetIndex]];
    return agent && target ? { agentId: agent.id, targetId: target.id } : null;
  }

  /** Where a path stands now; null if it is gone. */
  pairOf({ agentId, targetId }: Path): Pair | null {
    const agentIndex = this.layout.agents.findIndex((agent) => agent.id === agentId);
    const targetIndex = this.layout.targets.findIndex((target) => target.id === targetId);
    return agentIndex < 0 || targetIndex < 0 ? null : { agentIndex, targetIndex };
  }

  /** Shows an earlier instant. The next layout and complete rows bring back the present. */
  showPast(past: PastPicture): void {
    this.setLayout(past);
    this.asOfMs = past.at * 1000;
    this.rtt = past.rtt;
    this.state = past.state;
    this.lastRound = past.agents.map((agent) => (agent.last_round === null ? null : agent.last_round * 1000));
    this.disturbed.clear();
    for (const agent of past.agents) if (agent.disturbed) this.disturbed.add(agent.id);
    this.expectEverything();
  }

  private copyRow(row: number, base: number, from: (number | undefined)[], rtt: Int32Array, state: Uint8Array): void {
    const start = row * from.length;
    from.forEach((column, i) => {
      if (column === undefined) return;
      this.rtt[start + i] = rtt[base + column] ?? -2;
      this.state[start + i] = state[base + column] ?? 0;
    });
  }

  /** Applies changed rows. "gap" means: something was missed, ask for everything again. */
  apply(meta: RowsMeta, bytes: ArrayBuffer): Applied {
    const columns = this.layout.targets.length;
    const complete = meta.rows.length === this.layout.agents.length;
    if (meta.version !== this.layout.version) return meta.version > this.layout.version ? "gap" : "ignored";
    if (bytes.byteLength !== meta.rows.length * columns * 5) return "gap";
    if (!complete && this.seq !== null && meta.seq <= this.seq) return "ignored";
    if (!complete && (this.seq === null || meta.seq !== this.seq + 1)) return "gap";
    this.seq = meta.seq;
    this.clockOffsetMs = meta.now_ms - Date.now();
    const rtt = new Int32Array(bytes, 0, meta.rows.length * columns);
    const state = new Uint8Array(bytes, rtt.byteLength);
    meta.rows.forEach(([row, lastRoundMs, disturbed], i) => {
      if (row >= this.lastRound.length) return;
      this.rtt.set(rtt.subarray(i * columns, (i + 1) * columns), row * columns);
      this.state.set(state.subarray(i * columns, (i + 1) * columns), row * columns);
      this.lastRound[row] = lastRoundMs;
      const id = this.layout.agents[row]?.id ?? "";
      if (disturbed) this.disturbed.add(id);
      else this.disturbed.delete(id);
    });
    return "applied";
  }

  /** Forgets the position in the stream: the next rows must be complete. */
  expectEverything(): void {
    this.seq = null;
  }

  counts(): number[] {
    const counts = new Array<number>(8).fill(0);
    for (const state of this.state) counts[state] = (counts[state] ?? 0) + 1;
    return counts;
  }

  newestRoundMs(): number {
    return this.lastRound.reduce<number>((newest, ms) => Math.max(newest, ms ?? 0), 0);
  }
}
