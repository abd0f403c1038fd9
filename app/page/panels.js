// How the slate was made: level, funnel, time, dependencies.

import { barRow, by, el, heard, spaced } from "./dom.js";
import { LEVELS, reasonMeans, STATES } from "./words.js";

export function showLevel({ level, reasons }) {
  const badge = by("badge");
  Object.assign(badge, { hidden: false, textContent: spaced(level) });
  badge.dataset.level = level;
  const rungs = Object.entries(LEVELS).map(([name, means]) => rung(name, means, name === level));
  by("ladder").replaceChildren(...rungs);
  by("reasons").replaceChildren(...reasons.map(reasonRow));
}

function rung(name, means, here) {
  const made = el("li", { data: { level: name } }, el("b", {}, spaced(name)), here && el("span", {}, means));
  if (here) made.setAttribute("aria-current", "true");
  return made;
}

const reasonRow = (reason) => el("li", {}, el("code", {}, reason), ` ${reasonMeans(reason)}`);

/** From `debug.funnel` as far as it is there. */
export function showFunnel({ ranked, funnel }, shown) {
  const sources = Object.entries(funnel?.sources ?? {});
  const stages = [
    ...sources.map(([name, n]) => [spaced(name), n, name]),
    ["merged", funnel?.merged, ""],
    ["may be shown", funnel?.filtered, ""],
    ["added", funnel?.added || undefined, ""],
    ["ranked", funnel?.ranked ?? ranked, ""],
    ["slate", shown, ""],
  ].filter(([, n]) => n !== undefined);
  const most = Math.max(...stages.map(([, n]) => n), 1);
  by("funnel").replaceChildren(...stages.map(([name, n, kind]) => barRow(name, String(n), 0, n / most, kind)));
}

/**
 * The stages as they follow each other: features and retrieval begin together, ranking follows retrieval, re-ranking
 * follows ranking. What no stage accounts for (merging, writing the answer) is drawn last.
 */
export function showTime(timing, deadline, seen) {
  const { features, retrieval, ranking, reranking, total = 0 } = timing;
  const rows = [];
  const put = (name, ms, start) => ms === undefined || rows.push([name, ms, start, start + ms]);
  put("features", features, 0);
  put("retrieval", retrieval, 0);
  let at = retrieval ?? features ?? 0;
  put("ranking", ranking, at);
  at += ranking ?? 0;
  put("re-ranking", reranking, at);
  at += reranking ?? 0;
  put("rest", Math.max(0, total - at), Math.min(at, total));
  put("total", total, 0);
  const whole = Math.max(total, at, 0.001);
  by("waterfall").replaceChildren(
    ...rows.map(([name, ms, start, end]) => barRow(name, `${ms.toFixed(1)} ms`, start / whole, end / whole, name)),
  );
  by("took").textContent = `${total.toFixed(1)} ms`;
  const granted = deadline ? `The deadline was ${deadline} ms. ` : "";
  by("seen-here").textContent = `${granted}Seen from this page: ${seen.toFixed(0)} ms.`;
}

const NAMES = { features: "features, Redis", ranking: "ranking, Triton" };

/** The breakers of the worker that answered, beside what the last answer said of each part. */
export function showParts(health, reasons) {
  const told = new Map(reasons.map((reason) => reason.split(".")).map(([part, cause]) => [part, cause]));
  const rows = Object.entries(health.dependencies ?? {}).map(([name, state]) => {
    const held = health.held?.includes(name);
    const cause = told.get(name);
    const good = state === "closed" && !held && (!cause || cause === "no_history");
    const word = held ? "held" : (STATES[state] ?? state);
    return el(
      "tr",
      { data: { part: name } },
      el("th", { scope: "row" }, spaced(NAMES[name] ?? name)),
      el("td", {}, el("span", { className: "state", data: { good } }, cause && state === "closed" && !held ? spaced(cause) : word)),
    );
  });
  by("parts").replaceChildren(...rows, modelRow(health.model));
  const { bundle, worker, admission } = health;
  by("bundle").textContent = bundle ? `bundle ${bundle.version}, publication ${bundle.number ?? "none"}` : "";
  const load = admission ? `, ${admission.in_flight} of ${Math.floor(admission.limit)} on the full path` : "";
  by("worker").textContent = `As worker ${worker} sees them${load}.`;
}

function modelRow(model) {
  if (!model) return "";
  const state = el("span", { className: "state", data: { good: model.trusted } }, model.trusted ? "trusted" : "marked bad");
  return el("tr", { data: { part: "model" } }, el("th", { scope: "row" }, "model, DCN-V2"), el("td", {}, state));
}

/** The service itself does not answer. */
export function showNoService() {
  const lost = el("span", { className: "state", data: { good: false } }, "no answer");
  by("parts").replaceChildren(el("tr", { data: { part: "service" } }, el("th", { scope: "row" }, "service"), el("td", {}, lost)));
}

export function showRecent({ events, known, recent }, fresh) {
  const who = known ? "" : ", not in the bundle";
  by("recent-count").textContent = `${events} in all${who}`;
  by("recent").replaceChildren(...recent.map((item) => recentRow(item, item.item_id === fresh)));
}

function recentRow({ title, year, genres, stars }, fresh) {
  const rated = stars === null ? null : el("span", { className: "stars" }, heard("rated "), `${stars}`, el("span", { aria: { hidden: "true" } }, "★"), heard(" stars"));
  return el(
    "li",
    { data: { fresh } },
    el("span", { className: "name" }, title, year && el("span", { className: "quiet" }, ` ${year}`)),
    fresh ? el("span", { className: "mark", data: { kind: "new" } }, "now") : rated,
    el("span", { className: "genres" }, genres.join(", ")),
  );
}
