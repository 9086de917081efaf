// The number in a cell.

/** As many digits as the cell has room for, never more than the measurement is worth. */
export function cellNumber(us: number, width: number): string {
  const ms = us / 1000;
  if (width < 44) return ms < 10 ? ms.toFixed(1) : ms < 1000 ? ms.toFixed(0) : `${(ms / 1000).toFixed(0)}s`;
  if (ms < 10) return ms.toFixed(2);
  if (ms < 100) return ms.toFixed(1);
  return ms < 10000 ? ms.toFixed(0) : `${(ms / 1000).toFixed(0)} s`;
}
