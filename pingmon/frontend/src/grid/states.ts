// The cell states: code = index. Words and glyphs are shown to people; codes come from the socket (services/grid.py).

export interface CellState {
  word: string;
  label: string;
  glyph: string;
  meaning: string;
}

export const NONE = 0;
export const OK = 1;
export const SLOW = 2;
export const BAD = 3;
export const LOSSY = 4;
export const DOWN = 5;
export const ERROR = 6;
export const STALE = 7;

export const STATES: readonly CellState[] = [
  { word: "none", label: "not measured", glyph: "·", meaning: "the agent itself, or no result yet" },
  { word: "ok", label: "ok", glyph: "", meaning: "answers in time" },
  { word: "slow", label: "slow", glyph: "▴", meaning: "above the warning threshold" },
  { word: "bad", label: "very slow", glyph: "▲", meaning: "above the upper threshold" },
  { word: "lossy", label: "lossy", glyph: "◒", meaning: "some of the last 12 pings were lost" },
  { word: "down", label: "down", glyph: "×", meaning: "the last 3 pings were lost" },
  { word: "error", label: "error", glyph: "!", meaning: "not sent, or the name does not resolve" },
  { word: "stale", label: "stale", glyph: "▨", meaning: "the agent has been silent for 3 intervals" },
];

const LAST_CODES: Record<number, string> = {
  [-1]: "no answer",
  [-2]: "not measured",
  [-3]: "unreachable",
  [-4]: "not sent",
  [-5]: "name does not resolve",
  [-6]: "lost in a routing loop (time to live exceeded)",
  [-7]: "forbidden by the agent's own firewall",
};

/** The last sample in words; `us` is microseconds or a negative outcome code. */
export function lastInWords(us: number): string {
  return us >= 0 ? `${(us / 1000).toFixed(us < 10000 ? 2 : 1)} ms` : (LAST_CODES[us] ?? "unknown outcome");
}
