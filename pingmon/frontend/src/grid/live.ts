// The socket of the grid: connects, asks again after a gap, and says honestly how fresh the picture is.
import { io, type Socket } from "socket.io-client";
import { api, ApiError } from "../api";
import { Picture, type Layout, type RowsMeta } from "./picture";

export type LinkState =
  | { kind: "connecting" }
  | { kind: "live" }
  | { kind: "reconnecting"; sinceMs: number }
  | { kind: "past" }
  | { kind: "signed-out" };

const RESYNC_PAUSE_MS = 1000;

export class Live {
  link: LinkState = { kind: "connecting" };
  private readonly socket: Socket;
  private lastResync = 0;

  constructor(
    private readonly picture: Picture,
    private readonly onLayout: () => void,
    private readonly onRows: (changedRows: number[]) => void,
    private readonly onLink: (link: LinkState) => void,
  ) {
    this.socket = io("/grid", { transports: ["websocket"], reconnectionDelayMax: 5000, timeout: 8000 });
    this.socket.on("layout", (layout: Layout) => this.takeLayout(layout));
    this.socket.on("rows", (meta: RowsMeta, bytes: ArrayBuffer) => this.takeRows(meta, bytes));
    this.socket.on("connect", () => this.picture.expectEverything());
    this.socket.on("disconnect", (reason) => this.lost(reason === "io server disconnect"));
    this.socket.on("connect_error", () => this.lost(!this.socket.active));
    document.addEventListener("visibilitychange", () => this.wake());
    document.querySelector('form[action="/logout"]')?.addEventListener("submit", () => this.leave());
  }

  /** Takes nothing more: somebody looks at an earlier picture. */
  pause(): void {
    this.set({ kind: "past" });
    this.socket.disconnect();
  }

  /** Goes on after `pause`, with everything anew. */
  resume(): void {
    if (this.link.kind !== "past") return;
    this.set({ kind: "connecting" });
    this.socket.connect();
  }

  private set(link: LinkState): void {
    this.link = link;
    this.onLink(link);
  }

  private takeLayout(layout: Layout): void {
    this.picture.setLayout(layout);
    this.onLayout();
  }

  private takeRows(meta: RowsMeta, bytes: ArrayBuffer): void {
    const result = this.picture.apply(meta, bytes);
    if (result === "gap") this.resync();
    if (result !== "applied") return;
    if (this.link.kind !== "live") this.set({ kind: "live" });
    this.onRows(meta.rows.map(([row]) => row));
  }

  private resync(): void {
    const now = Date.now();
    if (now - this.lastResync < RESYNC_PAUSE_MS) return;
    this.lastResync = now;
    this.picture.expectEverything();
    this.socket.emit("resync");
  }

  private lost(refused: boolean): void {
    if (this.link.kind === "signed-out" || this.link.kind === "past") return;
    if (this.link.kind !== "reconnecting") this.set({ kind: "reconnecting", sinceMs: Date.now() });
    // A refusal is either an ended login or a server that is going down; the API tells which.
    if (refused) void this.askWhy();
  }

  /** Signing out here: nothing to wonder about when the server closes the socket. */
  private leave(): void {
    this.set({ kind: "signed-out" });
    this.socket.disconnect();
  }

  private async askWhy(): Promise<void> {
    try {
      await api("GET", "/api/v1/targets");
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return this.set({ kind: "signed-out" });
    }
    setTimeout(() => {
      if (this.link.kind !== "past") this.socket.connect();
    }, 2000);
  }

  private wake(): void {
    if (document.hidden || this.link.kind !== "reconnecting") return;
    if (!this.socket.connected) this.socket.connect();
  }
}
