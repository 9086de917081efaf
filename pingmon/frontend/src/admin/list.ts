// A table that is filled from the API again and again: keeps polling while the page is seen, says when it cannot.
import { ApiError } from "../api";
import { must } from "../ui/dom";

let pressed = false;
document.addEventListener("pointerdown", () => (pressed = true), true);
for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => (pressed = false), true);

export interface Poller {
  now(): Promise<void>;
}

/** Calls `load` now and every `everyMs` while the page is visible; a failure is shown in #list-error, not swallowed. */
export function poll(load: () => Promise<void>, everyMs: number): Poller {
  let running = false;
  const now = async (): Promise<void> => {
    if (running) return;
    running = true;
    try {
      await load();
      tell("");
    } catch (error) {
      tell(error instanceof Error ? error.message : String(error), error instanceof ApiError && error.status === 401);
    } finally {
      running = false;
    }
  };
  void now();
  setInterval(() => {
    if (!document.hidden) void now();
  }, everyMs);
  return { now };
}

function tell(message: string, signedOut = false): void {
  const place = must("#list-error");
  place.hidden = !message;
  place.textContent = message;
  if (signedOut) location.reload();
}

/** Puts new content in place; the button that had the focus, found again by its row and verb, keeps it. */
export function redraw(into: HTMLElement, content: readonly Node[]): void {
  if (pressed) {
    // A button replaced between press and release would swallow the click.
    document.addEventListener("pointerup", () => setTimeout(() => redraw(into, content)), { once: true });
    return;
  }
  const focused = into.contains(document.activeElement) ? document.activeElement : null;
  const row = focused?.closest<HTMLElement>("[data-row]")?.dataset["row"];
  const verb = focused instanceof HTMLElement ? focused.dataset["verb"] : undefined;
  into.replaceChildren(...content);
  if (row === undefined || verb === undefined) return;
  const same = [...into.querySelectorAll<HTMLElement>(`[data-verb="${verb}"]`)];
  same.find((button) => button.closest<HTMLElement>("[data-row]")?.dataset["row"] === row)?.focus();
}

export function can(role: "operator" | "admin"): boolean {
  const mine = document.body.dataset["role"];
  return mine === "admin" || mine === role;
}
