/** A call without an answer. */
export class ServiceError extends Error {
  /** Of the answer; null where nothing was answered at all: no connection, or no answer in time. */
  readonly status: number | null;
  /** The reason's name, such as overloaded, not_found, unreachable, timeout. */
  readonly error: string;
  /** The part of the request that is wrong. */
  readonly field: string | null;
  readonly reason: string;
  /** What the service's log and `recops trace` know the call by. */
  readonly requestId: string | null;
  readonly retryAfterMs: number | null;
}

/**
 * At most `maxRetries` after the first attempt (4); before retry n (from 1) a time drawn evenly from 0 to
 * min(`capMs` (5000), `baseMs` (100) * 2^(n-1)), on top of what the service asked for by Retry-After.
 */
export interface Retries {
  maxRetries?: number;
  baseMs?: number;
  capMs?: number;
}

export interface ClientOptions {
  /** By default RECOPS_API_KEY of the environment, where there is one. */
  apiKey?: string;
  /** For a call with all its attempts and the waits between them; 30,000. */
  timeoutMs?: number;
  /** For each attempt; 10,000. */
  attemptTimeoutMs?: number;
  retries?: Retries;
  fetch?: typeof fetch;
  /** Clock in milliseconds, chance from 0 to 1, and waiting: others than the usual, for tests. */
  now?: () => number;
  random?: () => number;
  sleep?: (ms: number, signal?: AbortSignal) => Promise<void>;
}

export interface CallOptions {
  /** For this call with all its attempts. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

export type Call = readonly [verb: string, path: string, again: string, isText: boolean];

export class Http {
  constructor(baseUrl?: string, options?: ClientOptions);
  readonly baseUrl: string;
  readonly timeoutMs: number;
  readonly attemptTimeoutMs: number;
  readonly retries: Required<Retries>;
  protected call<T>(call: Call, given?: object, options?: CallOptions): Promise<T>;
}
