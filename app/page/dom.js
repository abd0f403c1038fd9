// Elements out of data. Text only ever becomes text nodes: nothing that a title holds can become markup.

export const by = (id) => document.getElementById(id);

/** An element with these properties, `data` and `aria` apart, and children; what is null or false is left out. */
export function el(tag, { data = {}, aria = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  Object.assign(made.dataset, data);
  for (const [name, value] of Object.entries(aria)) made.setAttribute(`aria-${name}`, value);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Something only for those who hear the page. */
export const heard = (text) => el("span", { className: "heard" }, text);

/** A table row of a name, a number, and a bar from `start` to `end` (shares of the whole) that only repeats it. */
export function barRow(name, value, start, end, kind = "") {
  const bar = el("span", { className: "bar-fill", data: { kind } });
  bar.style.setProperty("margin-inline-start", `${100 * start}%`);
  bar.style.setProperty("inline-size", end > start ? `${Math.max(0.8, 100 * (end - start))}%` : "0");
  return el(
    "tr",
    { data: { stage: name } },
    el("th", { scope: "row" }, name),
    el("td", { className: "number" }, value),
    el("td", { className: "bar-cell", aria: { hidden: "true" } }, bar),
  );
}

export const spaced = (name) => name.replaceAll("_", " ");
export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
export const ordinal = (n) => {
  const last = n % 100 > 10 && n % 100 < 14 ? 0 : n % 10;
  return `${n}${{ 1: "st", 2: "nd", 3: "rd" }[last] ?? "th"}`;
};
export const digits = (number, places = 3) => (Number.isFinite(number) ? number.toFixed(places) : "–");
