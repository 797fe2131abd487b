// How bad a finding is: a shape, a word and a colour; and how many there are of each, as a small chart.

import {h} from "./dom.js";
import {icon} from "./icon.js";

export const SEVERITIES = ["critical", "high", "medium", "low"];
const DRAWINGS = {critical: "bad", high: "warn", medium: "half", low: "off"};

/** One severity. `word`: another word than its own, which is then said to a screen reader too. */
export const severity = (level, word = level) => h("span", {class: `severity ${level}`}, icon(DRAWINGS[level] ?? "off"), word, word !== level && h("span", {class: "unseen"}, ` ${level}`));

/** A bar of the severities, in their order; what it shows stands in its text alternative. */
export function chart(counts) {
  const total = SEVERITIES.reduce((sum, each) => sum + (counts[each] ?? 0), 0);
  const told = SEVERITIES.map((each) => `${counts[each] ?? 0} ${each}`).join(", ");
  let at = 0;
  const bars = SEVERITIES.map((each) => {
    const width = total ? (1000 * (counts[each] ?? 0)) / total : 0;
    const bar = width > 0 && h("svg:rect", {class: each, x: at, y: 0, width: Math.max(width - 3, 1), height: 14, rx: 2});
    at += width;
    return bar;
  });
  return h("svg:svg", {viewBox: "0 0 1000 14", preserveAspectRatio: "none", role: "img", "aria-label": `Findings by severity: ${told}`}, h("svg:rect", {class: "ground", width: 1000, height: 14}), bars);
}
