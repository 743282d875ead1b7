// How the client calls: time, retries, errors. Knows no operation; those are in recops.js. Types: http.d.ts.

/** A call without an answer. `status` is null where nothing was answered at all. */
export class ServiceError extends Error {
  constructor(status, problem, retryAfterMs = null) {
    const { error, field = null, message, request_id = null } = problem;
    super([status === null ? error : `${status} ${error}`, ...(field ? [field] : []), message].join(": "));
    this.name = "ServiceError";
    this.status = status;
    this.error = error;
    this.field = field;
    this.reason = message;
    this.requestId = request_id;
    this.retryAfterMs = retryAfterMs;
  }
}

const REFUSED = [429, 503]; // nothing was done
const NO_CONNECTION = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT"];

const LONGEST_MS = 2 ** 31 - 1; // a longer timer would go off at once

export class Http {
  #key;
  #fetch;
  #now;
  #random;
  #sleep;

  constructor(baseUrl = "http://127.0.0.1:3000", options = {}) {
    const url = new URL(baseUrl);
    if (!["http:", "https:"].includes(url.protocol) || url.username || url.password || url.search || url.hash) {
      throw new TypeError("baseUrl: expected http:// or https://, host and perhaps port and path, and nothing else");
    }
    this.baseUrl = baseUrl.replace(/\/+$/, "");
    this.timeoutMs = options.timeoutMs ?? 30_000;
    this.attemptTimeoutMs = options.attemptTimeoutMs ?? 10_000;
    this.retries = { maxRetries: 4, baseMs: 100, capMs: 5_000, ...options.retries };
    this.#key = (options.apiKey || globalThis.process?.env?.RECOPS_API_KEY) ?? "";
    if (!/^[!-~]*$/.test(this.#key)) {
      throw new TypeError("apiKey: a key has only visible ASCII characters (is there a line end at its end?)");
    }
    this.#fetch = options.fetch ?? ((...given) => globalThis.fetch(...given));
    this.#now = options.now ?? (() => performance.now());
    this.#random = options.random ?? Math.random;
    this.#sleep = options.sleep ?? wait;
  }

  /** The answer to one call; `again`: when it may be sent once more (always, refused, never). */
  async call([verb, path, again, isText], given = {}, options = {}) {
    const [target, body] = requestOf(verb, path, given);
    const until = this.#now() + (options.timeoutMs ?? this.timeoutMs);
    for (let retries = 0; ; retries++) {
      try {
        return await this.#attempt(verb, target, body, isText, until, options.signal);
      } catch (failure) {
        if (!(failure instanceof ServiceError) || options.signal?.aborted) throw failure;
        const { maxRetries, baseMs, capMs } = this.retries;
        const isRefused = REFUSED.includes(failure.status) || failure.error === "unreachable";
        const isLost = failure.status === 504 || (failure.status === null && !isRefused);
        if (again === "never" || !(isRefused || (isLost && again === "always")) || retries === maxRetries) throw failure;
        const waitMs = (failure.retryAfterMs ?? 0) + this.#random() * Math.min(capMs, baseMs * 2 ** retries);
        if (this.#now() + waitMs >= until) throw failure;
        await this.#sleep(waitMs, options.signal);
      }
    }
  }

  async #attempt(verb, target, body, isText, until, signal) {
    const headers = { accept: isText ? "text/plain, */*" : "application/json" };
    if (body !== undefined) headers["content-type"] = "application/json";
    if (this.#key) headers.authorization = `Bearer ${this.#key}`;
    const late = new AbortController();
    const stop = () => late.abort();
    const timer = setTimeout(stop, Math.max(1, Math.min(until - this.#now(), this.attemptTimeoutMs, LONGEST_MS)));
    signal?.addEventListener("abort", stop, { once: true });
    let answer, text;
    try {
      signal?.throwIfAborted();
      answer = await this.#fetch(this.baseUrl + target, { method: verb, headers, body, signal: late.signal, redirect: "manual" });
      text = await answer.text();
    } catch (error) {
      signal?.throwIfAborted();
      throw failureOf(error, late.signal.aborted);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
    return answerOf(answer, text, isText);
  }
}

function requestOf(verb, path, given) {
  const rest = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null && value !== undefined));
  const target = path.replace(/\{(\w+)\}/g, (_, name) => {
    const value = String(rest[name]);
    // Addresses know no path that is named so, however it is written.
    if (value === "." || value === "..") throw new TypeError(`${name}: ${value} cannot stand in an address`);
    delete rest[name];
    return encodeURIComponent(value);
  });
  if (verb !== "POST") {
    const query = new URLSearchParams(rest).toString();
    return [query ? `${target}?${query}` : target, undefined];
  }
  return [target, JSON.stringify(rest)];
}

function failureOf(error, isLate) {
  if (isLate) return new ServiceError(null, { error: "timeout", message: "no answer in time" });
  const code = error.cause?.code ?? "";
  const isUnreachable = NO_CONNECTION.includes(code);
  const message = [error.message, code].filter(Boolean).join(": ");
  return new ServiceError(null, { error: isUnreachable ? "unreachable" : "connection_lost", message });
}

function answerOf(answer, text, isText) {
  let value;
  try {
    value = isText && answer.status === 200 ? text : JSON.parse(text);
  } catch {
    value = undefined;
  }
  const requestId = answer.headers.get("x-request-id");
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  if (answer.status === 200) {
    if (isText || isObject) return value;
    const message = "the answer is no JSON object: not from the service?";
    throw new ServiceError(200, { error: "no_answer", message, request_id: requestId });
  }
  const unknown = { error: "error", message: "an answer without a reason: not from the service itself?" };
  const problem = { ...unknown, request_id: requestId, ...(isObject ? value : {}) };
  throw new ServiceError(answer.status, problem, milliseconds(answer.headers.get("retry-after")));
}

/** From seconds or a date; null for neither. */
function milliseconds(retryAfter) {
  if (retryAfter === null) return null;
  if (/^\d+$/.test(retryAfter)) return 1000 * Number(retryAfter);
  const at = Date.parse(retryAfter);
  return Number.isNaN(at) ? null : Math.max(0, at - Date.now());
}

function wait(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
