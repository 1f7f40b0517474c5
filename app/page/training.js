/** What the network learned, and how: its first filters, the way there where the checkpoint tells it, and how well it does. */

import * as api from "./api.js";
import { kindOf } from "./arithmetic.js";
import { limitOf, paintColours, paintMap, picture } from "./drawing.js";
import { drawMistakes } from "./mistakes.js";
import { addressOf, button, card, go, h, heading, labelled, percent, quiet, shareBar, shareOf, svg, switcher, written } from "./page.js";
import { rich, t } from "./words.js";

const FRAME_MS = 400;

export async function show(host, { app, state, signal }) {
  const { training, metrics } = app.model;
  const filmCard = card("film", heading(t("film")));
  const filterCard = card("filters");
  const mistakesCard = card("mistakes");
  host.append(
    h("h1", {}, t("training_title")),
    h("p", { class: "guide" }, rich("training_guide")),
    h("div", { class: "training-grid" },
      filterCard,
      mistakesCard,
      filmCard,
      card("curve", heading(t("curve")), curve(training.history)),
      card("tested", heading(t("tested")), tested(metrics), quiet(testedSets(app.model.answer_sets))),
      card("facts", heading(t("facts")), facts(app.model)),
    ),
  );
  const layer = app.layers.find((one) => kindOf(one) === "convolution");
  const parts = layer ? [drawFilters(filterCard, layer, state, signal), drawFilm(filmCard, app, layer)] : [];
  if (!layer) filterCard.append(quiet(t("no_convolution")));
  await Promise.all([...parts, drawMistakes(mistakesCard, { app, state, signal })]);
}

async function drawFilters(card, layer, state, signal) {
  const space = state.space ?? "normalised";
  card.append(heading(t("first_filters", { layer: layer.name })), h("p", { class: "waiting" }, t("computing")));
  try {
    const { shape, data } = await api.filters(layer.name, { space });
    if (signal.aborted) return;
    const [, inputs, height, width] = shape;
    card.replaceChildren(
      heading(t("first_filters", { layer: layer.name })),
      quiet(inputs === 3 ? t("first_filters_note", { height, width }) : t("filters_deep", { layer: layer.name, count: inputs })),
      h("div", { class: "controls" },
        switcher(t("space"), [["normalised", t("space_normalised")], ["pixel", t("space_pixel")]], space, (value) => go({ space: value === "pixel" ? value : null }, { replace: true })),
      ),
      filterSheet(data, shape, layer.name, state.image && ((channel) => addressOf({ view: "unit", layer: layer.name, channel, space: null }))),
    );
  } catch (problem) {
    card.lastChild.replaceWith(quiet(api.sentence(problem)));
  }
}

/** All filters of a layer, each as bright as it can be; each leads to its unit, if there is a picture to look into. */
function filterSheet(data, [count, inputs, height, width], name, addressFor = null) {
  const size = inputs * height * width;
  const tiles = Array.from({ length: count }, (_, index) => {
    const weights = data.subarray(index * size, (index + 1) * size);
    const limit = limitOf(weights);
    const draw = (canvas) => (inputs === 3 ? paintColours(canvas, weights, height, width, limit) : paintMap(canvas, weights.subarray(0, height * width), height, width, { limit, signed: true }));
    const inside = [picture(t("filter_alt", { layer: name, channel: index }), draw), h("span", { class: "tile-label", "aria-hidden": "true" }, String(index))];
    return addressFor ? h("a", { class: "tile", href: addressFor(index) }, inside) : h("div", { class: "tile still" }, inside);
  });
  return h("div", { class: "filter-sheet" }, tiles);
}

/** The filters after each epoch that was kept, with a slider over them, and as a film. */
async function drawFilm(card, app, layer) {
  if (!app.model.has_filmstrip) return card.append(quiet(t("film_none")));
  const [{ epochs }, { shape, data }] = await Promise.all([api.filmstrip(layer.name), api.filmFrames(layer.name)]);
  const size = data.length / epochs.length;
  const caption = h("p", {}, "");
  const sheet = h("div", {});
  const draw = (frame) => {
    slider.value = String(frame);
    caption.textContent = t("film_frame", { epoch: epochs[frame] });
    sheet.replaceChildren(filterSheet(data.subarray(frame * size, (frame + 1) * size), shape.slice(1), layer.name));
  };
  const slider = h("input", { type: "range", id: "film-slider", min: 0, max: epochs.length - 1, oninput: () => (clearTimeout(timer), draw(Number(slider.value))) });
  let timer = 0;
  const play = (frame) => {
    clearTimeout(timer);
    draw(frame);
    if (frame + 1 < epochs.length && card.isConnected) timer = setTimeout(play, FRAME_MS, frame + 1);
  };
  draw(epochs.length - 1);
  return card.append(caption, sheet, h("div", { class: "controls" }, labelled(t("epoch"), slider), button(`▶ ${t("play")}`, () => play(0))));
}

/** Both losses over the epochs, and how much was right. @param {Object[]} [history] `training.history` of GET /v1/model */
function curve(history) {
  if (!history?.length) return quiet(rich("curve_none"));
  const [width, height, left, bottom] = [520, 240, 44, 26];
  const highest = Math.max(...history.flatMap((one) => [one.train_loss, one.val_loss]));
  const epochs = history.map(({ epoch }) => epoch);
  const [first, last] = [Math.min(...epochs), Math.max(...epochs)];
  const x = (epoch) => left + ((epoch - first) / (last - first || 1)) * (width - left - 50);
  const y = (share) => 8 + (1 - share) * (height - bottom - 8);
  const line = (name, top, kind) => svg("polyline", { class: kind, points: history.map((one) => `${x(one.epoch)},${y(one[name] / top)}`).join(" ") });
  const label = (text, at, up, anchor) => svg("text", { x: at, y: up, "text-anchor": anchor }, text);
  const words = { count: history.length, first: written(history[0].val_loss, 2), last: written(history.at(-1).val_loss, 2) };
  return [
    svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "curve", role: "img", "aria-label": t("curve_alt", words) },
      svg("path", { class: "axis", d: `M${left} 8V${y(0)}H${width - 50}V8` }),
      label(written(highest, 2), left - 6, 14, "end"), label("0", left - 6, y(0), "end"), label("100 %", width - 46, 14, "start"), label("0 %", width - 46, y(0), "start"),
      label(`${t("epoch")} ${first}`, left, height - 8, "start"), label(String(last), width - 50, height - 8, "end"),
      line("train_loss", highest, "line train"), line("val_loss", highest, "line val"), line("val_accuracy", 1, "line right"),
    ),
    h("ul", { class: "key" }, ["train", "val", "right"].map((kind, index) => h("li", { class: kind }, t(["train_loss", "val_loss", "val_accuracy"][index])))),
  ];
}

function tested(metrics) {
  const splits = Object.entries(metrics).filter(([, one]) => typeof one?.accuracy === "number");
  if (!splits.length) return quiet(t("tested_none"));
  return splits.map(([split, { accuracy, images, recall, ...rest }]) => [
    h("p", { class: "big-figure" }, h("data", { value: accuracy }, percent(accuracy))),
    h("p", {}, sayTested(split, { share: percent(accuracy), images: images?.toLocaleString("en"), ...rest })),
    recall && [
      quiet(t("recall")),
      h("ol", { class: "bars" }, Object.entries(recall).map(([label, share]) =>
        h("li", { class: "bar still" }, shareBar(label, share)),
      )),
    ],
  ]);
}

function testedSets({ measured, reason }) {
  if (!measured) return t("set_none", { reason });
  const { label, coverage } = measured.worst_class;
  return t("set_tested", { ...shareOf(measured.target), images: measured.images.toLocaleString("en"), share: percent(measured.coverage), size: measured.mean_size.toFixed(2), label, worst: percent(coverage) });
}

function sayTested(split, { interval, ...words }) {
  if (split !== "cross_validation") return t(words.images ? "tested_on" : "tested_some", { ...words, split });
  const [low, high] = interval.map(percent);
  return t("cross_validated", { ...words, low, high });
}

/** What the checkpoint says of itself, all that is one number or word. */
function facts(model) {
  const { backbone = {}, ...training } = model.training;
  const backboneFacts = Object.entries(backbone).map(([name, value]) => [`backbone: ${name}`, value]);
  const rows = [
    [t("fact_name"), model.name],
    [t("fact_architecture"), model.architecture],
    [t("fact_parameters"), model.parameters.toLocaleString("en")],
    [t("fact_multiply_adds"), model.multiply_adds.toLocaleString("en")],
    [t("fact_device"), model.device],
    ...(model.engine.accuracy ? [[t("fact_int8"), `${percent(model.engine.accuracy.int8)} (${model.engine.accuracy.split})`]] : []),
    ...[...Object.entries(training), ...backboneFacts].filter(([, value]) => ["string", "number", "boolean"].includes(typeof value)).map(([name, value]) => [name.replaceAll("_", " "), Number.isInteger(value) ? value.toLocaleString("en") : String(value)]),
    [t("fact_digest"), `${model.digest.slice(0, 19)}…`],
  ];
  return h("dl", { class: "facts" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
