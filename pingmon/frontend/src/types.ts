// What the server's JSON looks like; field names are the server's (docs/api.md). Times are unix seconds.

export interface AgentRow {
  id: string;
  hostname: string;
  state: "pending" | "approved" | "hold" | "blacklisted";
  hold_reason: string | null;
  /** missing for viewers, as are the other optional fields */
  ip_address?: string;
  observed_ip?: string;
  version?: string;
  legacy: boolean;
  mesh: boolean;
  passphrase_id?: string | null;
  passphrase_label?: string;
  /** SHA-256 of its public key, whole and as people compare it; null for legacy agents */
  key_fpr?: string | null;
  fingerprint?: string | null;
  /** from where it may come */
  allowed?: string[];
  /** rises with each change, so that nobody decides about something else than what was looked at */
  revision: number;
  legacy_until: number | null;
  first_seen: number;
  last_seen: number;
  decided_at: number | null;
  same_name_as: string[];
  connected: boolean;
  /** the agent's clock minus the server's; null for agents that do not say */
  clock_offset_s: number | null;
  /** why an agent that should be a target of the others is none */
  not_in_mesh?: string | null;
  /** targets that the agent's host refuses to ping: how many, and the first of them */
  refused_count: number;
  refused: Refusal[];
}

export interface Refusal {
  target_id: number;
  target: string;
  code: string;
  reason: string;
}

/** What an admin looks at before deciding (GET /api/v1/agents/ID/evidence). */
export interface Evidence extends AgentRow {
  same_name: AgentRow[];
  /** deleted agents that had this key */
  same_key: { id: string; hostname: string; deleted_at: number }[];
  adds: { series: number; pings_per_s: number };
}

export interface TargetRow {
  id: number;
  name: string;
  address: string;
  agent_id: string | null;
  probe: Record<string, string | number | boolean>;
}

export interface PassphraseRow {
  id: string;
  label: string;
  legacy: boolean;
  max_uses: number;
  uses: number;
  created_at: number;
  expires_at: number;
  revoked_at: number | null;
  networks: string[];
  legacy_until: number | null;
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

/** Time in which rounds are missing, or none were expected; `text` says why in words. */
export interface MissingSpan {
  from: number;
  to: number;
  rounds: number;
  reason: string;
  text: string;
}

export interface Completeness {
  expected: number;
  received: number;
  late: number;
  missing: number;
  gaps: MissingSpan[];
  not_expected: MissingSpan[];
  /** of a pair: why the agent's host refuses to ping this target */
  refused?: { code: string; reason: string } | null;
}
