// The slate: one list item a place, each with its buttons and its why.

import { by, digits, el, heard, spaced } from "./dom.js";
import { briefly, explained } from "./why.js";

const MOVE_MS = 350;
const still = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Show `answer`, with what `known` tells of items by id. `before`: item id -> place of the slate it takes the place of,
 * or null where there is nothing to compare with. `onWatched(item, place)` is told of a click. Returns what changed.
 */
export function showSlate(answer, known, before, onWatched) {
  const list = by("items");
  const tops = new Map([...list.children].map((li) => [li.dataset.item, li.getBoundingClientRect().top]));
  const best = Math.max(...answer.items.map((item) => item.score), 1e-9);
  const rows = answer.items.map((item, place) => row(answer, item, place, 0, known, best, before, onWatched));
  list.replaceChildren(...rows);
  if (before && !still.matches) glide(rows, tops);
  return changes(answer.items, before);
}

/** Put the next page behind what is there. */
export function addPage(answer, known, onWatched) {
  const list = by("items");
  const start = list.children.length;
  const best = Math.max(...answer.items.map((item) => item.score), 1e-9);
  const rows = answer.items.map((item, place) => row(answer, item, place, start, known, best, null, onWatched));
  list.append(...rows);
  rows[0]?.querySelector("button").focus();
}

export const placesOf = (answer) => new Map(answer.items.map((item, place) => [item.item_id, place]));

function changes(items, before) {
  if (!before) return null;
  const fresh = items.filter((item) => !before.has(item.item_id)).length;
  const moved = items.filter((item, place) => (before.get(item.item_id) ?? place) !== place).length;
  return { fresh, moved };
}

function row(answer, item, place, start, known, best, before, onWatched) {
  const about = known.get(item.item_id) ?? { genres: [], year: null };
  const id = `why-${start + place}`;
  const why = el("div", { id, className: "why", hidden: true, role: "region", aria: { label: `Why ${item.title}` } });
  const ask = el("button", { type: "button", aria: { expanded: "false", controls: id } }, "Why", heard(` ${item.title}`));
  ask.addEventListener("click", () => toggle(ask, why, answer, item, place));
  const watched = el("button", { type: "button", className: "watched" }, "Watched", heard(` ${item.title}`));
  watched.addEventListener("click", () => onWatched(item, place, watched));
  const made = el(
    "li",
    { className: "item", data: { item: item.item_id } },
    el("span", { className: "place", aria: { hidden: "true" } }, String(start + place + 1)),
    el("h3", {}, item.title, about.year && el("span", { className: "quiet" }, ` ${about.year}`), mark(item, place, before)),
    el("p", { className: "genres" }, about.genres.join(", ") || "\u00a0"),
    el("p", { className: "by" }, item.sources.map(source), item.rule && badge(item.rule)),
    score(item.score, best),
    el("div", { className: "actions" }, watched, ask),
    why,
  );
  made.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !why.hidden) close(ask, why);
  });
  return made;
}

function score(value, best) {
  const bar = el("span", { className: "bar-fill" });
  bar.style.setProperty("inline-size", `${Math.max(0, (100 * value) / best)}%`);
  const track = el("span", { className: "track", aria: { hidden: "true" } }, bar);
  return el("p", { className: "score" }, heard("score "), digits(value), track);
}

const source = (name) => el("span", { className: "source", data: { source: name } }, spaced(name));
const badge = (rule) => el("span", { className: "rule" }, heard("rule "), spaced(rule));

/** How the place differs from before: in a sign for the eye, in words for the ear. */
function mark(item, place, before) {
  if (!before) return null;
  const was = before.get(item.item_id);
  if (was === place) return null;
  const [sign, words] =
    was === undefined ? ["new", "new"] : was > place ? [`▲${was - place}`, `up ${was - place}`] : [`▼${place - was}`, `down ${place - was}`];
  const kind = was === undefined ? "new" : was > place ? "up" : "down";
  return el("span", { className: "mark", data: { kind } }, el("span", { aria: { hidden: "true" } }, sign), heard(` ${words}`));
}

function toggle(button, why, answer, item, place) {
  if (!why.hidden) {
    close(button, why);
    return;
  }
  const entry = answer.debug?.items?.[place];
  const told = entry ? explained(entry, answer.debug.funnel?.ranked ?? answer.debug.ranked) : briefly(item);
  const shut = el("button", { type: "button" }, "Close", heard(` why ${item.title}`));
  shut.addEventListener("click", () => close(button, why));
  why.replaceChildren(...told.filter(Boolean), shut);
  why.hidden = false;
  button.setAttribute("aria-expanded", "true");
}

function close(button, why) {
  why.hidden = true;
  button.setAttribute("aria-expanded", "false");
  button.focus();
}

/** Each row from where it was to where it is. */
function glide(rows, tops) {
  for (const made of rows) {
    const was = tops.get(made.dataset.item);
    const by = was === undefined ? 0 : was - made.getBoundingClientRect().top;
    if (was === undefined) made.animate([{ opacity: 0 }, { opacity: 1 }], MOVE_MS);
    else if (by) made.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }], { duration: MOVE_MS, easing: "ease-out" });
  }
}
