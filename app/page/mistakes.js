/** What it confuses: the confusion matrix, whose cells open the photos that are kept, each of which can be looked into. */

import * as api from "./api.js";
import { receive } from "./answer.js";
import { go, h, heading, percent, quiet, say } from "./page.js";
import { rich, t } from "./words.js";

const MOST_CLASSES = 40; // of a matrix; more cells cannot be told apart
const MOST_PAIRS = 30; // of the list in its place

export async function drawMistakes(card, { app, state, signal }) {
  card.append(heading(t("mistakes")));
  if (!app.model.has_mistakes) return card.append(quiet(rich("mistakes_none")));
  const waiting = card.appendChild(h("p", { class: "waiting" }, t("loading")));
  try {
    const found = await api.mistakes();
    if (!signal.aborted) card.append(...matrixWithPhotos(app.model.classes, found, state));
  } catch (problem) {
    card.append(quiet(api.sentence(problem)));
  }
  return waiting.remove();
}

function matrixWithPhotos(classes, { source, images, cells }, state) {
  const photos = h("div", { id: "mistake-photos" });
  const status = h("p", { class: "status", role: "alert" });
  const buttons = new Map();
  const open = (cell) => {
    for (const [one, button] of buttons) button.setAttribute("aria-pressed", String(one === cell));
    photos.replaceChildren(...photosOf(cell, status));
  };
  const choose = (cell) => {
    go({ true: cell.true, predicted: cell.predicted }, { replace: true, quiet: true });
    open(cell);
    say(cellText(cell));
  };
  const buttonOf = (cell, text) => {
    const strength = `${Math.round(12 + 38 * Math.sqrt(cell.count / images[cell.true]))}%`;
    const button = h("button", { type: "button", class: "cell", "aria-pressed": "false", "aria-label": cellText(cell), title: cellText(cell), style: { "--strength": strength }, onclick: () => choose(cell) }, text);
    buttons.set(cell, button);
    return button;
  };
  const isSmall = classes.length <= MOST_CLASSES;
  const drawn = isSmall ? matrix(classes, images, cells, buttonOf) : pairs(cells, buttonOf);
  const chosen = cells.find((cell) => cell.true === state.true && cell.predicted === state.predicted);
  if (chosen && buttons.has(chosen)) open(chosen);
  return [quiet(t(`mistakes_${source.exposure}`, source)), cells.length ? quiet(t("mistakes_hint")) : quiet(t("mistakes_no_cell")), drawn, photos, status];
}

const cellText = (cell) => t("mistakes_cell", cell);

function matrix(classes, images, cells, buttonOf) {
  const byPlace = new Map(cells.map((cell) => [JSON.stringify([cell.true, cell.predicted]), cell]));
  const rows = classes.map((label) => {
    const row = classes.map((predicted) => byPlace.get(JSON.stringify([label, predicted])));
    const right = images[label] - row.reduce((sum, cell) => sum + (cell?.count ?? 0), 0);
    const inside = row.map((cell, at) => (classes[at] === label ? h("td", { class: "right-answers" }, String(right)) : h("td", {}, cell && buttonOf(cell, String(cell.count)))));
    return h("tr", {}, h("th", { scope: "row", title: label }, label), inside);
  });
  const head = classes.map((label) => h("th", { scope: "col", title: label }, h("span", {}, label)));
  return h("div", { class: "table-holder", tabindex: "0", role: "region", "aria-label": t("mistakes") },
    h("table", { class: "confusion" },
      h("caption", { class: "visually-hidden" }, t("mistakes")),
      h("thead", {}, h("tr", {}, h("td", {}), head)),
      h("tbody", {}, rows),
    ),
  );
}

const pairs = (cells, buttonOf) => h("ul", { class: "confused-pairs" }, cells.slice(0, MOST_PAIRS).map((cell) => h("li", {}, buttonOf(cell, cellText(cell)))));

function photosOf(cell, status) {
  const tiles = cell.photos.map((photo) => {
    const words = { ...cell, name: photo.name, share: percent(photo.predicted_probability), own: percent(photo.true_probability) };
    const look = async () => {
      try {
        await receive([new File([await api.mistake(photo.number)], photo.name, { type: "image/png" })], status, "");
      } catch (problem) {
        status.textContent = api.sentence(problem);
      }
    };
    return h("li", {}, h("button", { type: "button", class: "mistake", onclick: look },
      h("img", { src: api.mistakeAddress(photo.number), alt: "", loading: "lazy", width: 120, height: 120 }),
      h("span", { class: "quiet-text" }, t("mistakes_shares", words)), h("span", { class: "quiet-text" }, photo.name),
    ));
  });
  const more = cell.count - cell.photos.length;
  return [h("h3", {}, cellText(cell)), h("ul", { class: "mistake-list" }, tiles), more > 0 && quiet(t("mistakes_more", { count: more }))].filter(Boolean);
}
