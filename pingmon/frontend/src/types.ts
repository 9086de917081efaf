// What the server's JSON looks like; field names are the server's (docs/api.md). Times are unix milliseconds.

export interface AgentRow {
  id: string;
  hostname: string;
  state: "pending" | "approved" | "hold" | "blacklisted";
  hold_reason: string | null;
  ip_address: string;
  observed_ip: string;
  version: string;
  legacy: boolean;
  mesh: boolean;
  passphrase_label: string | null;
  first_seen_ms: number;
  last_seen_ms: number;
  decided_at_ms: number | null;
  same_name_as: string[];
  connected: boolean;
  last_round_ms: number | null;
}

export interface TargetRow {
  id: number;
  name: string;
  address: string;
  agent_id: string | null;
}

export interface PassphraseRow {
  id: string | number;
  label: string;
  legacy: boolean;
  max_uses: number;
  uses: number;
  created_at_ms: number;
  expires_at_ms: number;
  revoked_at_ms: number | null;
  state: string;
}

export interface Sample {
  timestamp: number;
  rtt_ms: number | null;
  status: "ok" | "timeout" | "unreachable" | "error";
}

export interface PairHistory {
  agent: string;
  target: string;
  interval_s: number;
  samples: Sample[];
}
