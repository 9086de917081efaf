// Looking back: a slider over the time that single rounds are kept. Fetches the picture of an instant and hands it out;
// null means: go on living. Knows no canvas and no socket.
import { packed } from "../api";
import { must } from "../ui/dom";
import { dateTime, duration } from "../ui/time";
import { type PastPicture, unpackPast } from "./picture";

const PAUSE_MS = 150;

export class Scrubber {
  private readonly bar = must("#scrub");
  private readonly slider = must<HTMLInputElement>("#scrub-at");
  private readonly toggle = must<HTMLButtonElement>("#look-back");
  private readonly told = must("#scrub-time");
  private timer = 0;
  private request: AbortController | null = null;
  /** the moment that "0 minutes back" means while somebody looks back */
  private nowMs = Date.now();

  constructor(private readonly onPicture: (past: PastPicture | null) => void) {
    this.slider.min = String(1 - Math.floor(Number(this.bar.dataset["hours"]) * 60));
    this.toggle.addEventListener("click", () => (this.bar.hidden ? this.open() : this.close()));
    must("#scrub-now").addEventListener("click", () => this.close());
    this.slider.addEventListener("input", () => this.moved());
    this.bar.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
  }

  private open(): void {
    this.bar.hidden = false;
    this.toggle.setAttribute("aria-expanded", "true");
    this.nowMs = Date.now();
    this.slider.value = "0";
    this.say("now: move the slider to the left, minute by minute with the arrow keys");
    this.slider.focus();
  }

  private close(): void {
    this.stop();
    this.bar.hidden = true;
    this.toggle.setAttribute("aria-expanded", "false");
    this.toggle.focus();
    this.onPicture(null);
  }

  private stop(): void {
    clearTimeout(this.timer);
    this.request?.abort();
  }

  private moved(): void {
    this.stop();
    const back = -Number(this.slider.value) * 60_000;
    if (back === 0) {
      this.nowMs = Date.now();
      this.say("now");
      return this.onPicture(null);
    }
    // Whoever has looked back for a while would otherwise ask for what has just been dropped.
    const oldest = Date.now() + Number(this.slider.min) * 60_000;
    const at = Math.max(this.nowMs - back, oldest) / 1000;
    this.say(`${dateTime(at)}, ${duration(back)} ago`);
    this.timer = window.setTimeout(() => void this.fetch(at), PAUSE_MS);
  }

  private async fetch(at: number): Promise<void> {
    const request = new AbortController();
    this.request = request;
    try {
      const past = unpackPast(await packed(`/api/v1/grid?at=${at.toFixed(3)}`, request.signal));
      if (!request.signal.aborted) this.onPicture(past);
    } catch (error) {
      if (request.signal.aborted) return;
      this.say(error instanceof Error ? error.message : String(error));
    }
  }

  private say(text: string): void {
    this.told.textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
  }
}
