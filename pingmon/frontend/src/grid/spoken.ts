// The lit cell for screen readers: one real row of ARIA cells (the canvas itself is silent) and a line that is read out.
import { h } from "../ui/dom";
import { ago } from "../ui/time";
import type { Spot } from "./geometry";
import type { Pair, Picture } from "./picture";
import { lastInWords, STATES } from "./states";

export class Spoken {
  readonly cellId = "grid-active";
  readonly announcer = h("div", { class: "sr-only", "aria-live": "polite", id: "grid-spoken" });
  readonly rows: HTMLElement;
  private readonly columnName = h("div", { role: "columnheader" });
  private readonly rowName = h("div", { role: "rowheader" });
  private readonly cell = h("div", { role: "gridcell", id: this.cellId });
  private readonly row = h("div", { role: "row" }, this.rowName, this.cell);

  constructor(private readonly picture: Picture) {
    this.rows = h("div", { class: "sr-only" }, h("div", { role: "row" }, this.columnName), this.row);
  }

  /** Fills the row with the cell and its position; returns agent, target, state and last value in words. */
  show(pair: Pair, spot: Spot): string {
    const { agents, targets } = this.picture.layout;
    const agent = agents[pair.agentIndex];
    const target = targets[pair.targetIndex];
    const at = pair.agentIndex * targets.length + pair.targetIndex;
    const value = `${STATES[this.picture.state[at] ?? 0]?.label}, ${lastInWords(this.picture.rtt[at] ?? -2)}`;
    this.columnName.textContent = target?.name ?? "";
    this.rowName.textContent = agent?.hostname ?? "";
    this.cell.textContent = value;
    this.row.setAttribute("aria-rowindex", String(spot.row + 2));
    this.cell.setAttribute("aria-colindex", String(spot.column + 2));
    const age = ago(this.picture.lastRound[pair.agentIndex] ?? null);
    return `${agent?.hostname} to ${target?.name}: ${value}, last round ${age}`;
  }

  /** For moves only: a change of rows is no reason to talk. */
  say(text: string): void {
    this.announcer.textContent = text;
  }
}
