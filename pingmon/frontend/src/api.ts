// The only place that talks HTTP to the server. Every refusal becomes an ApiError whose message is the server's sentence.

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

function csrfToken(): string {
  return document.querySelector<HTMLMetaElement>('meta[name="csrf-token"]')?.content ?? "";
}

async function toError(response: Response): Promise<ApiError> {
  if (response.status === 401) return new ApiError(401, "signed_out", "You are signed out. Sign in again to go on.");
  try {
    const body = (await response.json()) as { code?: string; message?: string };
    return new ApiError(response.status, body.code ?? "error", body.message ?? response.statusText);
  } catch {
    return new ApiError(response.status, "error", `The server answered ${response.status}. Reload the page and try again.`);
  }
}

async function send(method: string, path: string, accept: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { Accept: accept };
  if (method !== "GET") headers["X-XSRF-Token"] = csrfToken();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const init: RequestInit = { method, headers, credentials: "same-origin" };
  if (body !== undefined) init.body = JSON.stringify(body);
  if (signal) init.signal = signal;
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server does not answer. Check that it runs, then try again.");
  }
  if (!response.ok) throw await toError(response);
  return response;
}

export async function api<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const response = await send(method, path, "application/json", body, signal);
  return response.status === 204 ? (undefined as T) : ((await response.json()) as T);
}

/** What the server packs into bytes for programs that draw it. */
export async function packed(path: string, signal: AbortSignal): Promise<ArrayBuffer> {
  return (await send("GET", path, "application/octet-stream", undefined, signal)).arrayBuffer();
}
