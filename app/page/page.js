// One user's view of the service: who is asked about, what is shown, and what a click does.

import * as api from "./api.js";
import { by, count, digits, el } from "./dom.js";
import { showFunnel, showLevel, showNoService, showParts, showRecent, showTime } from "./panels.js";
import { addPage, placesOf, showSlate } from "./slate.js";
import { explained } from "./why.js";

const HEALTH_MS = 2000;
const COUNTED_MS = 250; // between two looks whether an event is counted
const PATIENCE_MS = 15000;
const TYPING_MS = 120;

let user = "";
let answer = null; // the slate on show
let turn = 0; // whoever was asked about before must not be shown after
let question = 0; // nor an item

const say = (text) => {
  by("said").textContent = text;
};
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Run `work`; what it is refused becomes a sentence, and a missing key a question for one. */
async function telling(work) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof api.Refused)) throw error;
    if (error.status === 401) askForKey();
    say(`Not shown: ${error.message}.`);
    return undefined;
  }
}

function askForKey() {
  by("key-form").hidden = false;
  by("key").focus();
}

/** Whatever is known of the items of a slate; without an answer they stay without genres. */
async function described(items) {
  const told = await api.items(items.map((item) => item.item_id)).catch(() => ({ items: [] }));
  return new Map(told.items.map((item) => [item.item_id, item]));
}

/** Ask for the user's slate and show all of it. `before`: places to compare with. Returns what changed. */
async function ask(before) {
  const mine = ++turn;
  const deadline = by("deadline").value;
  by("slate").setAttribute("aria-busy", "true");
  by("more").disabled = true; // it goes on from the slate that is about to be replaced
  try {
    const started = performance.now();
    const given = await api.recommend(user, deadline);
    const seen = performance.now() - started;
    const known = await described(given.items);
    if (mine !== turn) return undefined;
    answer = given;
    showInside(given, deadline, seen);
    return showSlate(given, known, before, watched);
  } finally {
    if (mine === turn) {
      by("slate").removeAttribute("aria-busy");
      by("more").disabled = false;
    }
  }
}

function showInside(given, deadline, seen) {
  showLevel(given.degradation);
  showFunnel(given.debug ?? {}, given.items.length);
  showTime(given.timing_ms ?? {}, deadline, seen);
  by("again").disabled = false;
  by("more").hidden = !given.cursor;
  look();
}

async function show(next) {
  user = next;
  by("user").value = user;
  document.title = `${user} · StreamRec`;
  history.replaceState(null, "", `?${new URLSearchParams({ user })}`);
  by("asked").hidden = true;
  await telling(async () => {
    const recent = api.recent(user).then((told) => told.user_id === user && showRecent(told));
    await Promise.all([ask(null), recent]);
    say(`${count(answer.items.length, "item")} for user ${user}, at ${answer.degradation.level.replaceAll("_", " ")}${arms()}.`);
  });
}

const arms = () => {
  const told = Object.entries(answer.arms ?? {}).map(([layer, arm]) => `${layer} ${arm}`);
  return told.length ? `; experiments: ${told.join(", ")}` : "";
};

async function again() {
  const changed = await telling(() => ask(placesOf(answer)));
  if (changed) say(`Asked again: ${inWords(changed)}.`);
}

const inWords = ({ fresh, moved }) => (fresh || moved ? `${fresh} new, ${moved} moved` : "nothing changed");

/** An event is sent; once the service has counted it, the slate is asked for again. */
async function watched(item, place, button) {
  const [who, before] = [user, placesOf(answer)];
  button.disabled = true;
  say(`Sent: ${item.title} was watched. Waiting until it counts.`);
  await telling(async () => {
    const started = performance.now();
    await api.send(who, item.item_id, "play");
    const counted = await untilCounted(who, item.item_id);
    if (who !== user) return;
    if (!counted) {
      say(`${item.title} is in the event log, but does not count yet: is Redis away?`);
      return;
    }
    const seconds = (performance.now() - started) / 1000;
    const changed = await ask(before);
    if (!changed) return;
    say(`${item.title} counts after ${digits(seconds, 1)} s: ${inWords(changed)}.`);
    keepFocus(place);
  });
  button.disabled = false;
}

/** Whether the event was among the user's recent ones before patience ran out. */
async function untilCounted(who, item) {
  for (const end = performance.now() + PATIENCE_MS; performance.now() < end; await pause(COUNTED_MS)) {
    const told = await api.recent(who);
    if (who !== user) return false;
    if (told.recent.some((event) => event.item_id === item)) {
      showRecent(told, item);
      return true;
    }
  }
  return false;
}

/** The row that had the focus is gone: the one now at its place has it next. */
function keepFocus(place) {
  if (document.activeElement && document.activeElement !== document.body) return;
  const rows = by("items").children;
  (rows[Math.min(place, rows.length - 1)]?.querySelector(".watched") ?? by("slate")).focus();
}

async function more() {
  const mine = turn;
  by("more").disabled = true; // the same page must not be added twice
  await telling(async () => {
    const next = await api.recommend(user, by("deadline").value, answer.cursor);
    const known = await described(next.items);
    if (mine !== turn) return;
    answer = { ...answer, items: [...answer.items, ...next.items], cursor: next.cursor };
    addPage(next, known, watched);
    by("more").hidden = !next.cursor;
    say(`${count(next.items.length, "more item")}.`);
  });
  if (mine === turn) by("more").disabled = false;
}

async function whyNot(item) {
  const [who, mine, box] = [user, ++question, by("asked")];
  const told = await api.why(who, item).catch((error) => ({ refused: error.message }));
  if (who !== user || mine !== question) return;
  const head = el("p", {}, el("b", {}, told.item?.title || item));
  const body = told.item ? explained(told.item, told.funnel?.ranked) : [el("p", {}, `Not told: ${told.refused}.`)];
  box.replaceChildren(head, ...body.filter(Boolean));
  box.hidden = false;
}

/** The state of the dependencies, now. */
async function look() {
  try {
    showParts(await api.health(), answer?.degradation.reasons ?? []);
  } catch (error) {
    if (!(error instanceof api.Refused)) throw error;
    if (error.status === 0) showNoService();
  }
}

async function suggest(prefix) {
  const told = await api.users(prefix).catch(() => ({ users: [] }));
  const options = told.users.map(({ user_id: value, events }) => el("option", { value, label: count(events, "event") }));
  by("users").replaceChildren(...options);
}

async function examples() {
  const told = await telling(() => api.users(""));
  if (!told) return;
  const picks = told.users.map(({ user_id: id, events }) => chip(id, `${count(events, "event")}`, () => show(id)));
  const stranger = () => show(`new-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`);
  by("examples").replaceChildren(...picks, chip("somebody new", "a user id that nobody knows", stranger));
}

function chip(text, title, onClick) {
  const made = el("button", { type: "button", title }, text);
  made.addEventListener("click", onClick);
  return made;
}

function begin() {
  let typing = 0;
  const submitted = (form, work) =>
    by(form).addEventListener("submit", (event) => {
      event.preventDefault();
      work();
    });
  submitted("user-form", () => show(by("user").value));
  submitted("ask-form", () => whyNot(by("ask").value));
  submitted("key-form", () => {
    api.useKey(by("key").value);
    by("key-form").hidden = true;
    start();
  });
  by("user").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => suggest(by("user").value), TYPING_MS);
  });
  by("again").addEventListener("click", again);
  by("more").addEventListener("click", more);
  by("recent-box").open = matchMedia("(min-width: 720px)").matches;
  setInterval(() => document.hidden || look(), HEALTH_MS);
  start();
}

async function start() {
  await examples();
  look();
  const asked = user || new URLSearchParams(location.search).get("user");
  const first = asked ?? by("examples").querySelector("button")?.textContent;
  if (first) await show(first);
}

begin();
