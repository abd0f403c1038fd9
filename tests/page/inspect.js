// What a checker of accessibility looks at: a list of what is wrong with the page as it is now.
() => {
  const wrong = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  const seen = (element) => element.checkVisibility({ visibilityProperty: true });

  const colour = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { rgb, a } = colour(getComputedStyle(at).backgroundColor);
      if (a === 1) return rgb;
      if (a > 0) wrong.push(`a background that lets through: ${at.className}`);
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !seen(element) || element.closest("noscript, datalist")) continue;
    texts += 1;
    const [ink, paper] = [luminance(colour(getComputedStyle(element).color).rgb), luminance(behind(element))];
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) wrong.push(`contrast ${ratio.toFixed(2)}: ${walker.currentNode.data.trim().slice(0, 30)}`);
  }
  if (texts < 50) wrong.push(`only ${texts} texts were looked at`);

  for (const field of all("input")) if (!field.labels.length) wrong.push(`no label: ${field.id}`);
  for (const button of all("button")) {
    if (!button.textContent.trim()) wrong.push("a button without a name");
    const { width, height } = button.getBoundingClientRect();
    if (seen(button) && (width < 24 || height < 24)) wrong.push(`too small to hit: ${button.textContent}`);
  }
  const names = all("main button").filter(seen).map((button) => button.textContent);
  for (const name of names) if (names.filter((other) => other === name).length > 1) wrong.push(`twice: ${name}`);
  const ids = all("[id]").map((element) => element.id);
  if (new Set(ids).size < ids.length) wrong.push("an id twice");
  for (const attribute of ["aria-labelledby", "aria-controls", "for", "list"]) {
    for (const element of all(`[${attribute}]`)) {
      const id = element.getAttribute(attribute);
      if (!document.getElementById(id)) wrong.push(`${attribute} of nothing: ${id}`);
    }
  }
  const levels = all("h1, h2, h3, h4").filter(seen).map((heading) => Number(heading.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) wrong.push("not one h1");
  levels.forEach((level, at) => level - (levels[at - 1] ?? 0) > 1 && wrong.push(`a heading skips to h${level}`));
  for (const landmark of ["header", "main", "aside", "[role=search]", "[aria-live=polite]"]) {
    if (!document.querySelector(landmark)) wrong.push(`no ${landmark}`);
  }
  if (!document.documentElement.lang) wrong.push("no language");
  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) wrong.push(`scrolls sideways: ${width} of ${innerWidth}`);
  return wrong;
}
