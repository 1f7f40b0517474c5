/** A picture comes in, by drop, paste, choice, camera or example, and its answer is shown. */

import * as api from "./api.js";
import { paintPixels, picture } from "./drawing.js";
import { addressOf, arrow, button, card, cellUnder, figure, go, h, heading, indexOr, keep, num, percent, quiet, recall, say, shareBar, shareOf } from "./page.js";
import { currentLanguage, rich, t } from "./words.js";

const EXAMPLES = ["ship", "airplane", "frog", "truck"];
const PREVIEW_SIDE = 720;
const NEAREST = 5; // pictures shown beside one that is unlike them
const FIRST = 10; // classes shown before all are asked for
const NAMED = 5; // of a set

export function show(host, { app, state, subject, target, signal }) {
  const size = app.model.preprocessing.size;
  const status = h("p", { class: "status", role: "alert" });
  const take = (files, comment = "") => receive(files, status, comment);
  host.append(
    h("h1", {}, t("answer_title")),
    h("p", { class: "guide" }, rich("answer_guide", { size, count: (3 * size * size).toLocaleString("en") })),
    h("div", { class: "answer-grid" },
      card("intake", dropZone(subject, take, status, signal), status, examples(take)),
      subject && card("sees", whatItSees(subject, size)),
      subject && card("answer", answers(app, subject, target, state)),
    ),
  );
}

function dropZone(subject, take, status, signal) {
  const file = h("input", { type: "file", accept: "image/*", class: "visually-hidden", id: "file", tabindex: "-1", "aria-hidden": "true", onchange: () => take([...file.files]) });
  const zone = h("div", { class: "drop" },
    subject ? preview(subject) : h("img", { src: "page/icon.svg", alt: "", width: 92, height: 92 }),
    h("p", { class: "drop-text" }, t("drop")),
    h("div", { class: "buttons" },
      button(t("choose_file"), () => file.click(), "primary"),
      button(t("webcam"), () => photograph(zone, take, status, signal)),
    ),
    file,
  );
  const over = (isOver) => zone.classList.toggle("over", isOver);
  addEventListener("dragover", (event) => (event.preventDefault(), over(true)), { signal });
  addEventListener("dragleave", (event) => over(event.relatedTarget !== null), { signal });
  addEventListener("drop", (event) => (event.preventDefault(), over(false), take([...event.dataTransfer.files])), { signal });
  addEventListener("paste", (event) => event.clipboardData.files.length && take([...event.clipboardData.files]), { signal });
  return zone;
}

/** The picture as it was sent, as long as this window is open: the service keeps it, but has no need to show it. */
function preview({ id, facts }) {
  const kept = recall("sessionStorage", id);
  const note = facts.format === "GIF" ? ` ${t("first_frame")}` : "";
  if (kept === "") return quiet(t("cannot_preview", facts) + note);
  if (!kept) return quiet(t("your_picture_gone"));
  const text = t("your_picture", facts);
  return h("figure", { class: "preview" }, h("img", { src: kept, alt: text }), h("figcaption", {}, text + note));
}

let latest = null; // the file sent last: an earlier one's answer does not replace it

/** Send the first of these files, and go to its answer. @param {File[]} files */
export async function receive(files, status, comment) {
  const tell = (text, isWrong = false) => {
    status.textContent = text;
    status.classList.toggle("wrong", isWrong);
  };
  if (files.length === 0) return tell(t("garbage_none"), true);
  const [file] = files;
  latest = file;
  const name = file.name || t("input");
  tell(t("sending", { name }));
  try {
    const [stored, small] = await Promise.all([api.store(file), reduce(file)]);
    tell(t("classifying"));
    keep("sessionStorage", stored.id, small);
    const { predictions, unknown } = await api.prediction(stored.id);
    if (latest !== file) return undefined;
    go({ view: "answer", image: stored.id, target: null, versus: null, y: null, x: null });
    const several = files.length > 1 ? ` ${t("garbage_many", { count: files.length })}` : "";
    const strange = unknown?.is_unknown ? ` ${t("unknown_title")}` : "";
    say(t("answered", { label: predictions[0].label, share: percent(predictions[0].probability) }) + strange + several + comment);
  } catch (problem) {
    const text = await explain(problem, file, name);
    if (latest === file) tell(text, true);
  }
  return undefined;
}

/** What is wrong with a file and what to do, then the service's own words. */
async function explain(problem, file, name) {
  const said = api.sentence(problem);
  if (problem.code === "unreachable") return said;
  const start = new TextDecoder("latin1").decode(await file.slice(0, 32).arrayBuffer());
  const isHeic = /^....ftyp(heic|heix|hevc|mif1|msf1|heim|heis)/s.test(start);
  const advice =
    file.size === 0 ? "garbage_empty"
    : isHeic ? "garbage_heic"
    : problem.status === 413 ? (/pixel/.test(problem.message) ? "garbage_pixels" : "garbage_bytes")
    : problem.status === 415 ? "garbage_text"
    : problem.status === 422 ? "garbage_broken"
    : null;
  return advice ? `${t(advice, { name })} ${said}` : said;
}

/** A small copy to show, as a data address; "" if this browser cannot read the format. */
async function reduce(file) {
  const address = URL.createObjectURL(file);
  const image = new Image();
  image.src = address;
  try {
    await image.decode();
    const scale = Math.min(1, PREVIEW_SIDE / Math.max(image.naturalWidth, image.naturalHeight));
    const canvas = h("canvas", { width: Math.max(1, Math.round(image.naturalWidth * scale)), height: Math.max(1, Math.round(image.naturalHeight * scale)) });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/webp", 0.85);
  } catch {
    return "";
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** Show what the camera sees until a picture is taken of it. */
async function photograph(zone, take, status, signal) {
  let stream;
  try {
    if (!navigator.mediaDevices) throw new Error("http");
    stream = await navigator.mediaDevices.getUserMedia({ video: true });
  } catch (error) {
    status.textContent = t("camera_none", { reason: error.message });
    status.classList.add("wrong");
    return undefined;
  }
  const release = () => stream.getTracks().forEach((track) => track.stop());
  if (signal.aborted) return release();
  const video = h("video", { autoplay: true, playsinline: true, muted: true });
  video.srcObject = stream;
  const stop = () => {
    release();
    dialog.remove();
  };
  const shoot = () => {
    if (!video.videoWidth) return; // nothing seen yet
    const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => take([new File([blob], t("webcam"), { type: blob.type })]), "image/jpeg", 0.95);
    dialog.close();
  };
  const dialog = h("dialog", { class: "camera", "aria-label": t("webcam"), onclose: stop },
    video,
    h("div", { class: "buttons" },
      button(t("camera_take"), shoot, "primary"),
      button(t("camera_cancel"), () => dialog.close()),
    ),
  );
  zone.append(dialog);
  dialog.showModal();
  signal.addEventListener("abort", () => dialog.close());
  return undefined;
}

function examples(take) {
  const choose = async (name) => {
    take([new File([await api.example(name)], `${name}.webp`, { type: "image/webp" })]);
  };
  const buttons = EXAMPLES.map((name) =>
    h("button", { type: "button", class: "example", onclick: () => choose(name) }, h("img", { src: `page/examples/${name}.webp`, alt: t(`example_${name}`), width: 72, height: 72 })),
  );
  return h("div", { class: "examples" }, h("p", {}, t("examples")), h("div", {}, buttons));
}

function whatItSees({ pixels: { data } }, size) {
  const reading = h("p", { class: "reading" }, t("pixel_hint"));
  const at = { y: Math.floor(size / 2), x: Math.floor(size / 2) };
  const read = (y, x) => {
    Object.assign(at, { y: indexOr(y, size, at.y), x: indexOr(x, size, at.x) });
    const colours = ["red", "green", "blue"].map((name, channel) =>
      h("span", { class: `channel ${name}` }, t(name), " ", num(data[(channel * size + at.y) * size + at.x], 0)),
    );
    reading.replaceChildren(t("pixel_at", at), " ", ...colours.flatMap((colour) => [colour, " "]));
  };
  const point = (event) => read(...cellUnder(event, canvas, size, size));
  const press = (event) => {
    const step = arrow(event);
    if (!step) return;
    event.preventDefault();
    read(at.y + step[0], at.x + step[1]);
    say(reading.textContent);
  };
  const canvas = picture(t("what_it_sees_alt", { size }), (one) => paintPixels(one, data, size, size), {
    class: "pixels", tabindex: "0", onpointermove: point, onpointerdown: point, onkeydown: press,
  });
  return [heading(t("what_it_sees", { size })), canvas, reading];
}

/** How strange a picture is to the network: a warning if it is unlike what it knows, else what that does not prove. */
function strangeness(app, { id, unknown }) {
  if (!unknown) return null;
  if (!unknown.is_unknown) return quiet(rich("known_says"));
  return h("div", { class: "status wrong", id: "unknown" },
    h("p", {}, h("strong", {}, t("unknown_title"))),
    h("p", {}, rich("unknown_says", { share: String(Math.ceil(100 * unknown.p_value)) })),
    app.model.has_index && nearest(id),
  );
}

/** The pictures that the network finds most like this one; they come later than the answer. */
function nearest(id) {
  const row = h("div", { class: "image-row" });
  Promise.all([api.neighbours(id, NEAREST), api.neighboursPictures(id, NEAREST)]).then(([{ neighbours }, { shape, data }]) => {
    const side = shape[3];
    const figures = neighbours.map(({ label }, place) => {
      const pixels = data.subarray(place * 3 * side * side, (place + 1) * 3 * side * side);
      return figure(picture(label, (canvas) => paintPixels(canvas, pixels, side, side)), label);
    });
    row.append(h("h3", {}, t("unknown_nearest")), h("div", {}, figures));
  }).catch(() => row.append(t("unknown_nearest_failed")));
  return row;
}

function answers(app, subject, target, state) {
  const { predictions } = subject;
  const list = h("ol", { class: "bars", id: "answers" });
  const showsAll = state.classes === "all";
  const isLong = predictions.length > FIRST;
  const some = showsAll ? predictions : predictions.slice(0, FIRST);
  const logits = h("input", { type: "checkbox", id: "logits", checked: state.logits === "1", onchange: () => go({ logits: logits.checked ? "1" : null }, { replace: true }) });
  list.append(...some.map((one) => h("li", {}, bar(one, one.label === target, state.logits === "1", predictions[0].label))));
  return [
    heading(t("answer")),
    strangeness(app, subject),
    subject.set && h("p", { id: "answer-set", class: "quiet-text" }, h("strong", {}, nameSet(subject.set, predictions.length)), " ", t("set_meaning", shareOf(app.model.answer_sets.coverage))),
    quiet(t("answer_hint")),
    list,
    h("div", { class: "buttons" },
      h("label", { class: "check" }, logits, t("show_logits")),
      isLong && button(showsAll ? t("fewer_classes") : t("all_classes", { count: predictions.length }), () => go({ classes: showsAll ? null : "all" }, { replace: true }), "small"),
      h("a", { class: "button primary", href: addressOf({ view: "network" }) }, t("go_network"), " →"),
    ),
  ];
}

/** A set of labels in words: "cat or dog"; of many the first, and how many more. */
function nameSet(labels, count) {
  if (labels.length === count) return t("set_any", { count });
  const rest = labels.length - NAMED;
  const names = rest > 0 ? [...labels.slice(0, NAMED), t("set_more", { count: rest })] : labels;
  return new Intl.ListFormat(currentLanguage() === "en" ? "en-GB" : "zh", { type: "disjunction" }).format(names);
}

function bar({ label, index, probability, logit }, isTarget, showsLogit, best) {
  return h("button", { type: "button", class: "bar", id: `class-${index}`, "aria-pressed": String(isTarget), onclick: () => go({ target: label === best ? null : label }) },
    shareBar(label, probability),
    showsLogit && h("span", { class: "bar-logit" }, num(logit)),
  );
}
