"use strict";
// Cards of the queries. Their pictures are made when they come near the window.
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const [panel, className, outcome, status, list] =
    ["panel", "class", "outcome", "status", "queries"].map((id) => document.getElementById(id));
  let shown = [];  // what the cards show, in their order

  const element = (tag, attributes = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), attributes);
    made.append(...children);
    return made;
  };

  const clip = (video, alt, result, ...lines) => {
    const strip = element("div", { className: "strip" });
    if (data.strips[video]) strip.append(element("img", { src: data.strips[video], alt }));
    const caption = element("figcaption", {}, ...lines);
    return element("figure", { className: `clip ${result}` }, strip, caption);
  };

  const line = (text, className = "") => element("div", { className }, text);

  const drawn = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting && target.matches(".empty")) draw(target);
  }, { rootMargin: "600px" });

  const draw = (card) => {
    drawn.unobserve(card);
    card.classList.remove("empty");
    const query = shown[card.dataset.number];
    const path = data.paths[query.video];
    card.querySelector("figure").replaceWith(clip(query.video, `query ${path}, ${query.label}`, "", "query"));
    card.querySelector("ol").append(...query.nearest.map(([video, similarity], number) => {
      const [path, label] = [data.paths[video], query.labels[video]];
      const result = label === query.label ? "right" : "wrong";
      const alt = `${number + 1}: ${path}, ${label}, ${result}, similarity ${similarity.toFixed(3)}`;
      const lines = [line(`${MARKS[result]} ${label}`, "mark"), line(similarity.toFixed(3)), line(path, "faint")];
      return element("li", {}, clip(video, alt, result, ...lines));
    }));
  };

  const MARKS = { right: "\u2713", wrong: "\u2717" };

  const card = (query, number) => {
    const percent = (100 * query.precision).toFixed(1);
    const mark = element("span", { className: "mark" }, `${MARKS[query.outcome]} ${query.outcome}`);
    const about = element("div", { className: `about ${query.outcome}` },
      element("h4", {}, data.paths[query.video]),
      element("p", {}, element("bdi", {}, query.label), "; nearest video ", mark, `; average precision ${percent} %`));
    const made = element("li", { className: "card query empty" }, about, element("figure", { className: "clip" }),
      element("ol", { className: "row" }));
    made.dataset.number = number;
    return made;
  };

  // The queries of the chosen labelling and feature, worst first.
  const queries = () => {
    const { label: labelling, feature } = data.panels[Number(panel.value)];
    const labels = data.labels[labelling];
    return data.queries.map((video, number) => {
      const [label, nearest] = [labels[video], data.nearest[feature][number]];
      const outcome = labels[nearest[0][0]] === label ? "right" : "wrong";
      return { video, label, labels, nearest, outcome, precision: data.precisions[labelling][feature][number] };
    }).sort((a, b) => a.precision - b.precision);
  };

  const show = () => {
    const all = queries();
    shown = all.filter((query) => (!className.value || query.label === className.value)
      && (!outcome.value || query.outcome === outcome.value));
    drawn.disconnect();
    const cards = shown.map(card);
    list.replaceChildren(...cards);
    cards.forEach((made) => drawn.observe(made));
    status.textContent = `${shown.length} of ${all.length} queries`;
  };

  // Another labelling has other labels; one that stays is kept.
  const nameClasses = () => {
    const counts = new Map();
    for (const { label } of queries()) counts.set(label, (counts.get(label) ?? 0) + 1);
    const names = [...counts.keys()].sort();
    const before = className.value;
    className.replaceChildren(element("option", { value: "" }, "all"),
      ...names.map((name) => element("option", { value: name }, `${name} (${counts.get(name)})`)));
    className.value = counts.has(before) ? before : "";
  };

  panel.addEventListener("change", () => { nameClasses(); show(); });
  className.addEventListener("change", show);
  outcome.addEventListener("change", show);
  addEventListener("beforeprint", () => list.querySelectorAll(".empty").forEach(draw));
  nameClasses();
  show();
}
