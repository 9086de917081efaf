// Where things are: cell size, header size, and the way from a point to a cell and back. Pure arithmetic.
import type { CellSize } from "./sprites";

export const SIZES: readonly CellSize[] = [
  { w: 8, h: 8 },
  { w: 12, h: 12 },
  { w: 18, h: 18 },
  { w: 30, h: 24 },
  { w: 44, h: 28 },
  { w: 64, h: 34 },
  { w: 88, h: 38 },
  { w: 116, h: 44 },
];
const AUTO_FLOOR = 1;

export interface Geometry {
  size: CellSize;
  sizeIndex: number;
  headerW: number;
  headerH: number;
  /** column names stand upright when cells are too narrow for them */
  upright: boolean;
  rows: number;
  columns: number;
  width: number;
  height: number;
}

export interface Fit {
  rows: number;
  columns: number;
  longestRow: number;
  longestColumn: number;
  viewW: number;
  viewH: number;
  /** index into SIZES chosen by the user, or null for automatic */
  chosen: number | null;
}

function measure(fit: Fit, sizeIndex: number): Geometry {
  const size = SIZES[sizeIndex] ?? { w: 12, h: 12 };
  const upright = size.w < 64;
  const headerW = Math.min(Math.max(fit.longestRow + 34, 72), Math.max(110, Math.min(240, fit.viewW * 0.34)));
  const headerH = upright ? Math.min(Math.max(fit.longestColumn + 18, 48), 132) : 46;
  return {
    size,
    sizeIndex,
    headerW: Math.round(headerW),
    headerH: Math.round(headerH),
    upright,
    rows: fit.rows,
    columns: fit.columns,
    width: Math.round(headerW) + fit.columns * size.w,
    height: Math.round(headerH) + fit.rows * size.h,
  };
}

/** The largest cells that need no scrolling; if none do, the largest that need none sideways; else small ones. */
export function layOut(fit: Fit): Geometry {
  if (fit.chosen !== null) return measure(fit, Math.min(Math.max(fit.chosen, 0), SIZES.length - 1));
  const all = SIZES.map((_, i) => measure(fit, i)).reverse();
  const allAtLeastFloor = all.filter((g) => g.sizeIndex >= AUTO_FLOOR);
  return (
    allAtLeastFloor.find((g) => g.width <= fit.viewW && g.height <= fit.viewH) ??
    allAtLeastFloor.find((g) => g.width <= fit.viewW) ??
    measure(fit, AUTO_FLOOR)
  );
}

export interface Spot {
  row: number;
  column: number;
}

/** The cell under a point of the view (scroll offsets added here), or null on headers and outside. */
export function spotAt(g: Geometry, x: number, y: number, scrollX: number, scrollY: number): Spot | null {
  if (x < g.headerW || y < g.headerH) return null;
  const column = Math.floor((x - g.headerW + scrollX) / g.size.w);
  const row = Math.floor((y - g.headerH + scrollY) / g.size.h);
  return row < g.rows && column < g.columns ? { row, column } : null;
}

/** Where a key leads from `at` (nowhere yet: any known key leads to the corner); null for keys that do not walk. */
export function stepFrom(at: Spot | null, key: string, ctrl: boolean, rows: number, columns: number, page: number): Spot | null {
  if (rows < 1 || columns < 1) return null;
  const { row, column } = at ?? { row: 0, column: 0 };
  const moves: Record<string, Spot> = {
    ArrowUp: { row: row - 1, column },
    ArrowDown: { row: row + 1, column },
    ArrowLeft: { row, column: column - 1 },
    ArrowRight: { row, column: column + 1 },
    PageUp: { row: row - page, column },
    PageDown: { row: row + page, column },
    Home: { row: ctrl ? 0 : row, column: 0 },
    End: { row: ctrl ? rows - 1 : row, column: columns - 1 },
  };
  const to = moves[key];
  if (!to) return null;
  if (!at) return { row: 0, column: 0 };
  return { row: Math.min(Math.max(to.row, 0), rows - 1), column: Math.min(Math.max(to.column, 0), columns - 1) };
}
