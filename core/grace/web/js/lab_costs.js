// What models have cost: the account of today, and the sums by model, MAD, run or day.

import {get} from "./api.js";
import {h, replace} from "./dom.js";
import {money, tokens} from "./format.js";
import {button, card, choice, empty, figure, foreign, link, table} from "./parts.js";

const BY = [["model", "Model"], ["mad", "MAD"], ["run", "Run"], ["day", "Day"]];
const SPANS = [["1", "the last day"], ["7", "the last 7 days"], ["30", "the last 30 days"], ["0", "ever"]];
const PAGE = 100;
const NO_RUN = "-";  // what was asked outside of any run

const LINKS = {run: (name) => `/runs/${encodeURIComponent(name)}`, mad: (name) => `/runs?mad=${encodeURIComponent(name)}`};
const known = (options, wanted) => options.some(([each]) => each === wanted) ? wanted : options[0][0];

export async function part({query}, page) {
  const wanted = {by: known(BY, query.get("by")), days: known(SPANS, query.get("days"))};
  const figures = h("dl", {class: "figures"});
  const list = h("div", null);
  let most = PAGE;

  async function load() {
    const {costs, others, today} = await get("/costs", wanted, {signal: page.signal});
    replace(figures, today && [
      figure("Spent today", money(today.spent_usd), {note: today.cap_usd === null ? "no cap set" : `of ${money(today.cap_usd)}`}),
      figure("Set aside", money(today.held_usd), {note: "for live runs"}),
      figure("Tokens today", tokens(today.spent_tokens), {note: today.cap_tokens === null ? "no cap set" : `of ${tokens(today.cap_tokens)}`}),
      figure("Tokens set aside", tokens(today.held_tokens), {note: "for live runs"})]);
    figures.hidden = !today;
    draw(costs, others);
  }

  function draw(costs, others) {
    const [, word] = BY.find(([each]) => each === wanted.by);
    const name = (each) => {
      if (each.more || !each.name || (wanted.by === "run" && each.name === NO_RUN)) return h("span", {class: "quiet-text"}, each.more ? `${each.more} others` : each.name ? "no run" : "nobody's");
      const told = LINKS[wanted.by] ? link(LINKS[wanted.by](each.name), foreign(each.name, 160)) : foreign(each.name, 160);
      return each.below ? h("span", {class: "quiet-text"}, "└ ", told) : told;
    };
    const rows = costs.slice(0, most).flatMap((each) => [each, ...(each.children ?? []).map((child) => ({...child, below: true}))]);
    if (others && costs.length <= most) rows.push(others);
    replace(list, costs.length ? table([
      {name: word, class: "cut", cell: name}, {name: "Calls", class: "number short named", cell: (each) => tokens(each.calls)}, {name: "Failed", class: "number short named", cell: (each) => tokens(each.failed)},
      {name: "In", class: "number short named", cell: (each) => tokens(each.input_tokens)}, {name: "Cached", class: "number short named", cell: (each) => tokens(each.cached_tokens)},
      {name: "Out", class: "number short named", cell: (each) => tokens(each.output_tokens)}, {name: "Cost", class: "number short named", cell: (each) => h("span", {title: each.assumed ? `${each.assumed} of the calls told no usage: the most they can have cost is counted` : null}, money(each.usd), each.assumed > 0 && " *")}], rows, {label: "Costs"})
      : empty("No model has been asked", wanted.days === "0" ? "What each call costs is written down here." : "Not in that time.", ...(wanted.days === "0" ? ["madlab ask \"what can you do?\""] : [])),
    costs.some((each) => each.assumed) && h("p", {class: "note card-body"}, "* Some calls told no usage: the most they can have cost is counted."),
    costs.length > most && h("div", {class: "pager"}, h("span", null, `${most} of ${costs.length}`), button("More", () => {
      most += PAGE;
      draw(costs, others);
    }, {kind: "small"})));
  }

  function change(values) {
    Object.assign(wanted, values);
    page.setQuery(values);
    most = PAGE;
    return load();
  }

  await load();
  const bar = h("div", {class: "filters", role: "search", "aria-label": "Add up"}, choice("Add up by", BY, wanted.by, (by) => change({by})), choice("When", SPANS, wanted.days, (days) => change({days})));
  return {node: h("div", {class: "stack"}, figures, h("div", null, bar, card("What models have cost", {}, list))), topics: [], refresh: load};
}
