// What the page asks of the service it came from, and of nobody else.

let key = ""; // kept in this tab's memory only

export const useKey = (given) => {
  key = given;
};

/** A refusal, or no answer at all; `status` is 0 without one. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(path, { headers = {}, body } = {}) {
  const asked = { headers: { ...headers, ...(key && { authorization: `Bearer ${key}` }) } };
  if (body !== undefined) {
    Object.assign(asked, { method: "POST", body: JSON.stringify(body) });
    asked.headers["content-type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, asked);
  } catch {
    throw new Refused(0, "the service does not answer");
  }
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, told.detail ?? told.title ?? `status ${response.status}`);
  return told;
}

const listed = (name, values) => new URLSearchParams(values.map((value) => [name, value]));

export const users = (prefix) => call(`/v1/page/users?${listed("prefix", prefix ? [prefix] : [])}`);
export const recent = (user) => call(`/v1/page/recent?${listed("user_id", [user])}`);
export const items = (ids) => call(`/v1/page/items?${listed("id", ids)}`);
export const health = () => call("/healthz");
export const why = (user, item) => call("/v1/why", { body: { user_id: user, item_id: item } });

/** A slate; `deadline` in milliseconds, or empty for the service's own. */
export const recommend = (user, deadline, cursor) =>
  call("/v1/recommendations", {
    body: { user_id: user, limit: 20, debug: true, ...(cursor && { cursor }) },
    headers: deadline ? { "x-request-timeout-ms": String(deadline) } : {},
  });

export const send = (user, item, kind) =>
  call("/v1/events", { body: { events: [{ event_id: eventId(), user_id: user, item_id: item, kind }] } });

/** 128 random bits; crypto.randomUUID is not there on plain HTTP from another machine. */
const eventId = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("-");
