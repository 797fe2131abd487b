// Small drawings, 16 by 16, in the colour of the text beside them. A state has a shape of its own, not only a colour.

import {h} from "./dom.js";

const PATHS = {
  attention: "M8 1.8 1.6 13.4h12.8L8 1.8ZM8 6.4v3.4M8 11.7v.1",
  runs: "M4 2.8 12.6 8 4 13.2V2.8Z",
  patches: "M4.5 2v12M4.5 10.5C9 10.5 11.5 9 11.5 5.5M11.5 5.5a1.7 1.7 0 1 0 0-3.4 1.7 1.7 0 0 0 0 3.4",
  reports: "M8 1.6 13.4 3.7v4c0 3.4-2.3 5.6-5.4 6.7-3.1-1.1-5.4-3.3-5.4-6.7v-4L8 1.6ZM5.7 8l1.7 1.7 3-3.3",
  conversations: "M2 3h12v8.4H7.6L4.4 14v-2.6H2V3ZM5 6.2h6M5 8.6h3.6",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10ZM10.6 10.6 14 14",
  lab: "M6 1.8h4M6.8 1.8v4.6L2.9 12.5c-.5.9 0 1.7 1 1.7h8.2c1 0 1.5-.8 1-1.7L9.2 6.4V1.8M4.6 10h6.8",
  waiting: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4Z",
  working: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4ZM6.6 5.4v5.2L10.8 8 6.6 5.4Z",
  good: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4ZM5.2 8.2l2 2 3.7-4.2",
  bad: "M5.3 1.8h5.4l3.5 3.5v5.4l-3.5 3.5H5.3l-3.5-3.5V5.3l3.5-3.5ZM5.9 5.9l4.2 4.2M10.1 5.9l-4.2 4.2",
  warn: "M8 1.8 1.6 13.4h12.8L8 1.8ZM8 6.4v3.4M8 11.7v.1",
  off: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4ZM5.2 8h5.6",
  late: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4ZM8 4.8V8l2.2 1.6",
  half: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4ZM8 5v6a3 3 0 0 0 0-6Z",
  menu: "M2 4h12M2 8h12M2 12h12",
  close: "M3.5 3.5l9 9M12.5 3.5l-9 9",
  sun: "M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM8 1.2v1.4M8 13.4v1.4M1.2 8h1.4M13.4 8h1.4M3.2 3.2l1 1M11.8 11.8l1 1M3.2 12.8l1-1M11.8 4.2l1-1",
  moon: "M13.6 9.6A6 6 0 0 1 6.4 2.4a6 6 0 1 0 7.2 7.2Z",
  auto: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4ZM8 1.8v12.4M10 3v10M12 4.6v6.8",
  keys: "M1.8 4h12.4v8H1.8V4ZM4.2 6.6h.1M6.8 6.6h.1M9.3 6.6h.1M11.8 6.6h.1M5 9.4h6",
  down: "M8 2v8.4M4.4 7 8 10.6 11.6 7M2.8 13.6h10.4",
  next: "M6 3.5 10.5 8 6 12.5",
  live: "M8 9.6a1.6 1.6 0 1 0 0-3.2 1.6 1.6 0 0 0 0 3.2ZM4.6 11.4a4.8 4.8 0 0 1 0-6.8M11.4 4.6a4.8 4.8 0 0 1 0 6.8",
};

/** The drawing `name`; it says nothing to a screen reader, so a word stands beside it. */
export function icon(name, kind = "") {
  const path = h("svg:path", {d: PATHS[name] ?? PATHS.waiting});
  return h("svg:svg", {class: `icon ${kind}`, viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false"}, path);
}
