/** The routes of the service as functions. What was fetched is kept for a while; errors are sentences. */

import { t } from "./words.js";

const KEPT_BYTES = 96e6;
const AT_ONCE = 4; // requests in flight: the service draws views one at a time, so more would only wait there

/** What the service, or the way to it, says instead of an answer. */
export class Problem extends Error {
  constructor(detail, { status = 0, code = "unreachable" } = {}) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** What to say of an error: only problems of the service are for readers, others are ours. */
export function sentence(error) {
  if (!(error instanceof Problem)) throw error;
  return error.code === "unreachable" ? t("unreachable") : t("says", { detail: error.message });
}

/**
 * @typedef {Object} Numbers an array of NumPy.
 * @property {number[]} shape
 * @property {Float32Array|Uint8Array} data row by row
 */

const kept = new Map(); // path -> {answer: Promise, bytes}, the longest unused first
let inFlight = 0;
const waiting = [];

const at = (layer) => `v1/layers/${encodeURIComponent(layer)}`;
const of = (id, view) => `v1/images/${id}/${view}`;

export const model = () => json("v1/model");
export const layers = () => json("v1/layers");
export const image = (id) => json(`v1/images/${id}`);
export const prediction = (id) => json(of(id, "prediction"));
export const pixels = (id) => npy(of(id, "input.npy"));
export const mapsOf = (id, layer) => npy(of(id, `activations/${encodeURIComponent(layer)}.npy`));
export const trace = (id, layer, channel, y, x) =>
  json(of(id, `trace/${encodeURIComponent(layer)}/${channel}${y === undefined ? "" : `/${y}/${x}`}`));
export const filter = (layer, channel) => json(`${at(layer)}/filters/${channel}.json`);
export const filters = (layer, query) => npy(`${at(layer)}/filters.npy${asQuery(query)}`);
export const filmstrip = (layer) => json(`${at(layer)}/filmstrip.json`);
export const filmFrames = (layer) => npy(`${at(layer)}/filmstrip.npy`);
export const evidence = (id, method, query) => json(of(id, `attributions/${method}.json${asQuery(query)}`));
export const occlusion = (id, query) => json(of(id, `occlusion${asQuery(query)}`));
export const reconstruction = (id, layer, channel) =>
  json(of(id, `reconstructions/${encodeURIComponent(layer)}/${channel}.json`));
export const neighbours = (id, k) => json(of(id, `neighbours.json?k=${k}`));
export const neighboursPictures = (id, k) => npy(of(id, `neighbours.npy?k=${k}`));
export const unit = (layer, channel) => json(`${at(layer)}/units/${channel}.json`);
export const unitPictures = (layer, channel) => npy(`${at(layer)}/units/${channel}.npy`);
export const mistakes = () => json("v1/model/mistakes");
export const mistakeAddress = (number) => `v1/model/mistakes/${number}.png`;
export const mistake = (number) => send(mistakeAddress(number));

/** One of the pictures that ship with the page. @returns {Promise<ArrayBuffer>} */
export const example = (name) => send(`page/examples/${name}.webp`);

/** Store a picture. @param {Blob} blob */
export async function store(blob) {
  const form = new FormData();
  form.append("file", blob);
  return readJson(await send("v1/images", { method: "POST", body: form }));
}

/** Forget all that was fetched of an image: it is no longer kept. */
export function forget(id) {
  for (const path of kept.keys()) if (path.includes(id)) kept.delete(path);
}

function asQuery(query = {}) {
  const parts = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  return parts.length ? `?${new URLSearchParams(parts)}` : "";
}

const readJson = (buffer) => JSON.parse(new TextDecoder().decode(buffer));
const json = (path) => remembered(path, readJson);
const npy = (path) => remembered(path, parseNpy);

function remembered(path, parse) {
  const known = kept.get(path);
  if (known) {
    kept.delete(path);
    kept.set(path, known); // now the last one used
    return known.answer;
  }
  const entry = { bytes: 0, answer: null };
  entry.answer = send(path).then((buffer) => {
    entry.bytes = buffer.byteLength;
    makeRoom();
    return parse(buffer);
  });
  entry.answer.catch(() => kept.delete(path));
  kept.set(path, entry);
  return entry.answer;
}

function makeRoom() {
  let bytes = [...kept.values()].reduce((sum, entry) => sum + entry.bytes, 0);
  for (const [path, entry] of kept) {
    if (bytes <= KEPT_BYTES) return;
    bytes -= entry.bytes;
    if (entry.bytes) kept.delete(path);
  }
}

/** What the service answers, all of it: a connection may also break halfway. @returns {Promise<ArrayBuffer>} */
async function send(path, options = {}) {
  if (inFlight >= AT_ONCE) await new Promise((resolve) => waiting.push(resolve));
  inFlight += 1;
  try {
    const response = await fetch(path, options);
    if (!response.ok) throw await problemIn(response);
    return await response.arrayBuffer();
  } catch (error) {
    throw error instanceof Problem ? error : new Problem("unreachable");
  } finally {
    inFlight -= 1;
    waiting.shift()?.();
  }
}

async function problemIn(response) {
  const body = await response.json().catch(() => ({}));
  return new Problem(body.detail ?? `${response.status} ${response.statusText}`, { status: response.status, code: body.code });
}

/**
 * Read NumPy's file format, version 1 to 3, of what this service sends: little-endian float32 or uint8, in C order.
 *
 * @param {ArrayBuffer} buffer
 * @returns {Numbers}
 */
export function parseNpy(buffer) {
  const view = new DataView(buffer);
  const isLong = view.getUint8(6) > 1;
  const start = (isLong ? 12 : 10) + (isLong ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder("latin1").decode(new Uint8Array(buffer, 0, start));
  const shape = /'shape': \(([^)]*)\)/.exec(header)[1].split(",").filter((part) => part.trim()).map(Number);
  const type = /'descr': '(.*?)'/.exec(header)[1];
  const Kind = { "<f4": Float32Array, "|u1": Uint8Array }[type];
  if (!Kind) throw new Problem(`numbers of type ${type} came; this page reads <f4 and |u1`, { code: "unreadable" });
  return { shape, data: new Kind(buffer, start) };
}
