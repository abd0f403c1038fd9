// The service's terms in a person's words; docs/architecture.md and docs/reranking.md have them in full.

export const LEVELS = {
  FULL: "fresh features, all sources, DCN-V2",
  PARTIAL_RETRIEVAL: "some sources, or fewer candidates",
  STALE_FEATURES: "the user as last known",
  SIMPLE_RANKING: "logistic regression ranks",
  BATCH_LIST: "the user's precomputed list",
  POPULAR: "popular items",
};

const CAUSES = {
  timeout: "no answer in the time allowed",
  busy: "not asked: too many calls to it are unanswered",
  unavailable: "refused or reset",
  open: "not asked: its breaker is open",
  bad_answer: "an answer that cannot be used",
  bad_model: "its model gave bad scores before",
  out_of_memory: "Triton is out of memory",
  model_not_found: "Triton has not this model",
  no_history: "nothing to go by",
  missing: "a known user has no row",
  stale: "the row is past its freshness",
  lag: "events are counted late",
  shed: "too busy for the full path",
  expired: "no time was left at the start",
  near: "time ran out on the way",
  empty: "no source proposed anything",
  bug: "an error nobody expected",
};

const REASONS = {
  cold_start: "nobody knows this user",
  model_stale: "the models are old",
  narrowed: "fewer candidates were ranked, under load",
};

/** What a reason of an answer means; empty for one that this page does not know. */
export const reasonMeans = (reason) => REASONS[reason] ?? CAUSES[reason.split(".").at(-1)] ?? "";

export const STATES = { closed: "ok", open: "open", "half-open": "probing" };

const BARRED = {
  seen: "the user has seen it",
  audience: "it is not for this age or region",
  excluded: "the request excluded it, or it was on an earlier page",
  removed: "it was taken out of the catalogue",
  not_offered: "it is not offered",
};

/** One sentence on how far an item came, from an entry of `debug.items` or of /v1/why. */
export function verdict({ step, reason, place }) {
  const rule = reason ? `the rule ${reason}` : "a rule";
  const told = {
    shown: Number.isInteger(place) ? `Shown at place ${place + 1}.` : "Shown.",
    displaced: `Ranked among the first, then moved out of the slate by ${rule}.`,
    below_the_slate: "Ranked, but not among the first.",
    dropped: `Ranked, then taken out by ${rule}.`,
    below_the_cut: "Proposed, but not among the candidates that were ranked.",
    filtered: `May not be shown: ${BARRED[reason] ?? reason}.`,
    not_retrieved: "No source proposed it.",
    not_on_the_list: "The slate is a precomputed list, without it.",
    unknown: "This bundle has no such item.",
  };
  return told[step] ?? "";
}
