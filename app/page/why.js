// Why an item is where it is: its sources, its rank, and what each rule did.

import { digits, el, ordinal, spaced } from "./dom.js";
import { verdict } from "./words.js";

/** The nodes for one entry of `debug.items` or of /v1/why; `ranked` is how many were ranked. */
export function explained(entry, ranked) {
  return [el("p", {}, verdict(entry)), proposals(entry.sources ?? []), way(entry, ranked)];
}

/** The same from the item of the answer alone, where the answer has no more. */
export function briefly(item) {
  const by = item.sources?.length ? `Proposed by ${item.sources.map(spaced).join(", ")}.` : "From a precomputed list.";
  const moved = item.rule ? ` Put at its place by the rule ${item.rule}.` : "";
  return [el("p", {}, `${by} Score ${digits(item.score)}.${moved}`)];
}

function proposals(sources) {
  if (!sources.length) return null;
  const rows = sources.map(({ source, rank, score }) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, el("span", { className: "source", data: { source } }, spaced(source))),
      el("td", { className: "number" }, ordinal(rank + 1)),
      el("td", { className: "number" }, digits(score)),
    ),
  );
  const head = ["proposed by", "its rank", "its score"].map((name) => el("th", { scope: "col" }, name));
  return el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
}

function way({ ranked_place: place, ranker_score: score, moves = [] }, ranked) {
  if (!Number.isInteger(place)) return null;
  const of = ranked ? ` of ${ranked}` : "";
  const steps = [el("li", {}, `Ranked ${ordinal(place + 1)}${of}, score ${digits(score)}`)];
  for (const { rule, before, after } of moves) {
    const to = Number.isInteger(after) ? `${before + 1} → ${after + 1}` : `${before + 1} → out`;
    steps.push(el("li", {}, el("span", { className: "rule" }, spaced(rule)), ` ${to}`));
  }
  return el("ol", { className: "way" }, steps);
}
