"""What a page owes to people who do not see it, or use no mouse."""

from __future__ import annotations

from playwright.sync_api import Page

_FIND = """() => {
  const found = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  const seen = (element) => element.getClientRects().length > 0;
  const ids = all("[id]").map((element) => element.id);
  if (new Set(ids).size < ids.length) found.push("two elements have one id");
  for (const element of all("button, select, a, summary, [role=region], progress")) {
    const label = element.labels?.length ? element.labels[0].textContent : element.textContent;
    if (!(element.getAttribute("aria-label") || label).trim()) found.push(`no name: ${element.outerHTML}`);
  }
  for (const image of all("img")) if (!image.alt) found.push(`no alternative: ${image.src.slice(0, 40)}`);
  for (const svg of all("svg")) if (!svg.getAttribute("aria-label")) found.push("no alternative of a figure");
  const levels = all("h1, h2, h3, h4, h5").filter(seen).map((heading) => Number(heading.tagName[1]));
  if (levels[0] !== 1 || levels.some((level, number) => level > (levels[number - 1] ?? 0) + 1))
    found.push(`headings skip a level: ${levels}`);
  for (const element of all("body *")) {
    const { overflowX, overflowY } = getComputedStyle(element);
    const scrolls = overflowX === "auto" && element.scrollWidth > element.clientWidth
      || overflowY === "auto" && element.scrollHeight > element.clientHeight;
    if (scrolls && element.tabIndex < 0) found.push(`scrolls by mouse only: ${element.outerHTML.slice(0, 80)}`);
  }
  return found;
}"""


def accessibility_problems(page: Page) -> list[str]:
    """Returns what a page lacks: names of controls, words for pictures, headings in order, ways for a keyboard."""
    page.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
    return page.evaluate(_FIND)
