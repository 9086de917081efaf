// A table that is filled from the API again and again: keeps polling while the page is seen, says when it cannot.
import { ApiError } from "../api";
import { must } from "../ui/dom";

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

export function can(role: "operator" | "admin"): boolean {
  const mine = document.body.dataset["role"];
  return mine === "admin" || mine === role;
}
