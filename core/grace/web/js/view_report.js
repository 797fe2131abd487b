// One report: what a scan found, by file or by rule, with the code in place, set against the scan before it; and which
// findings a person accepts, as a baseline to be kept beside the code.

import {ask as request, get, post} from "./api.js";
import {h, replace} from "./dom.js";
import {count, shown, words} from "./format.js";
import {icon} from "./icon.js";
import {actButton, button, card, choice, empty, facts, figure, foreign, head, link, runState, said, search, state, toast, when} from "./parts.js";
import {chart, severity, SEVERITIES} from "./severity.js";
import {reportHref} from "./view_reports.js";
import {runHref} from "./view_runs.js";

const PAGE = 500;
const SKIPPED = 200;
const GROUPS = [["", "severity"], ["path", "file"], ["rule", "rule"]];
const ORDERS = [["worst", "worst first"], ["path", "by place"], ["rule", "by rule"]];
const FILTERS = ["q", "severity", "rule", "path"];
const YEAR_MS = 365 * 86_400_000;
const OPEN = matchMedia("(max-width: 620px)").matches ? 2 : 40; // groups that are open at first, the worst

export async function view({run: id, query}, page) {
  await page.style("places.css");
  const path = `/runs/${encodeURIComponent(id)}/report`;
  const filters = Object.fromEntries(FILTERS.map((each) => [each, query.get(each) ?? ""]));
  let group = query.get("group") ?? "path";
  let order = query.get("order") ?? "worst";
  let against = query.get("against");
  let report = null;
  let shownFindings = [];
  const accepted = new Map(); // id → {id, reason, until, who}
  const withdrawn = new Set();

  const list = h("div", null);
  const summary = h("span", {role: "status"});
  const top = h("div", {class: "stack"});
  const side = h("div", {class: "stack"});
  const basket = h("div", {hidden: true});

  async function load(offset = 0) {
    const found = await get(path, {...filters, against: against ?? "", limit: PAGE, offset}, {signal: page.signal});
    if (against === null && found.previous && !offset) {
      against = found.previous; // what has changed since the last scan is what one looks for first
      return load();
    }
    report = found;
    shownFindings = offset ? [...shownFindings, ...found.findings] : found.findings;
    draw();
  }

  function draw() {
    replace(top, h("section", {class: "card", "aria-label": "Severities"}, h("div", {class: "card-body severity-chart"}, chart(report.counts),
      h("div", {class: "severity-counts"}, SEVERITIES.map((each) => button([severity(each), String(report.counts[each])], () => change({severity: filters.severity === each ? "" : each}), {kind: "small bare", "aria-pressed": String(filters.severity === each)}))))),
      h("dl", {class: "figures"}, figure("Found", String(report.total)), figure("Scanned", `${report.coverage.scanned} of ${count(report.coverage.files, "file")}`, {note: report.coverage.skipped_count ? `${count(report.coverage.skipped_count, "file")} skipped` : null, tone: report.coverage.skipped_count ? "warn" : ""}),
        report.comparison && figure("New", String(report.comparison.new.length), {note: "since the scan compared with"}), report.comparison && figure("Still there", String(report.comparison.still)), report.comparison && figure("Gone", String(report.comparison.gone_count)),
        report.accepted.length > 0 && figure("Accepted before", String(report.accepted.length))));
    drawList();
    drawSide();
    drawBasket();
  }

  const opened = new Map(); // groups, as a person left them
  function drawList() {
    const fresh = new Set(report.comparison?.new ?? []);
    summary.textContent = report.matching === report.total ? count(report.total, "finding") : `${report.matching} of ${count(report.total, "finding")} match`;
    if (!shownFindings.length) return replace(list, report.total ? empty("No finding matches", "Take a filter away.", button("Clear filters", () => change(Object.fromEntries(FILTERS.map((each) => [each, ""]))))) : empty("Nothing was found", "What was looked at stands at the side. Nothing found is not nothing there."));
    const sorted = [...shownFindings];
    if (order === "path") sorted.sort((a, b) => a.path.localeCompare(b.path) || a.line - b.line);
    if (order === "rule") sorted.sort((a, b) => a.rule.localeCompare(b.rule) || a.path.localeCompare(b.path));
    const groups = new Map();
    for (const each of sorted) {
      const key = each[group || "severity"];
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(each);
    }
    const more = shownFindings.length < report.matching && actButton("Show more", () => load(shownFindings.length), {kind: "small"});
    replace(list, [...groups].map(([key, findings], place) => h("details", {open: opened.get(key) ?? place < OPEN, ontoggle: (event) => opened.set(key, event.target.open)}, h("summary", {class: "group-head"}, h("h3", {class: group ? "mono" : ""}, group ? foreign(key || "(none)", 300) : words(key)),
      worst(findings), h("span", {class: "quiet-text"}, count(findings.length, "finding"))), findings.map((each) => findingItem(each, fresh)))), h("div", {class: "pager"}, h("span", null, `${shownFindings.length} shown`), more));
  }

  const worst = (findings) => severity(SEVERITIES.find((level) => findings.some((each) => each.severity === level)));

  function findingItem(finding, fresh) {
    const code = h("div", null, finding.snippet && source([{number: finding.line || "", text: finding.snippet}], finding.line || ""));
    const around = finding.line > 0 && actButton("Show around it", async () => {
      const found = await get(`${path}/code`, {finding: finding.id}, {signal: page.signal});
      replace(code, source(found.lines, found.line));
      around.remove();
    }, {kind: "small"});
    const mark = accepted.get(finding.id);
    const node = h("article", {class: `finding item ${mark ? "accepted" : ""}`, data: {id: finding.id}},
      h("div", {class: "finding-head"}, severity(finding.severity), h("h4", null, h("a", {class: "item-link", href: `#${encodeURIComponent(finding.id)}`, onclick: (event) => event.preventDefault()}, foreign(finding.line ? `${finding.path}:${finding.line}` : finding.path, 400))),
        fresh.has(finding.id) && h("span", {class: "tag warn"}, "new"), mark && h("span", {class: "tag quiet"}, `accepted until ${mark.until}`)),
      h("p", null, foreign(finding.message, 2000)), code,
      finding.fix && h("p", {class: "fix"}, "Mend: ", foreign(finding.fix, 2000)),
      h("p", {class: "about"}, [finding.rule, finding.cwe, `confidence ${finding.confidence}`, finding.scanners.join(", "), finding.id].filter(Boolean).map((each, place) => [place > 0 && " · ", foreign(each, 200)])),
      h("div", {class: "acts"}, around, mark ? button("Not accepted after all", () => unaccept(finding), {kind: "small"}) : button("Accept…", () => accept(finding), {kind: "small"})));
    return node;
  }

  // --- what a person accepts

  function accept(finding) {
    const until = new Date(Date.now() + YEAR_MS / 4).toISOString().slice(0, 10);
    const reason = h("textarea", {rows: "3", required: true, maxlength: "500"});
    const day = h("input", {type: "date", required: true, value: until, min: new Date().toISOString().slice(0, 10), max: new Date(Date.now() + 3 * YEAR_MS).toISOString().slice(0, 10)});
    const who = h("input", {type: "text", maxlength: "100", placeholder: "operator", autocomplete: "name"});
    const dialog = h("dialog", {class: "dialog wide", "aria-labelledby": "accept-title", onclose: () => dialog.remove()}, h("h2", {id: "accept-title"}, "Accept a finding"),
      h("p", null, foreign(`${finding.path}${finding.line ? `:${finding.line}` : ""}`, 300), h("br"), "It will not count until the day you say. Take the baseline along afterwards, and keep it beside the code."),
      h("form", {class: "stack", onsubmit: (event) => {
        event.preventDefault();
        accepted.set(finding.id, {id: finding.id, reason: reason.value.trim(), until: day.value, who: who.value.trim()});
        dialog.close();
        drawList();
        drawBasket();
      }}, labelled("Why", reason), labelled("Until", day), labelled("Who", who), h("div", {class: "acts"}, button("Cancel", () => dialog.close()), h("button", {type: "submit", class: "button primary"}, "Accept"))));
    document.body.append(dialog);
    dialog.showModal();
  }

  function unaccept(finding) {
    accepted.delete(finding.id);
    drawList();
    drawBasket();
  }

  function drawBasket() {
    const changes = accepted.size + withdrawn.size;
    basket.hidden = !changes;
    replace(basket, changes > 0 && card("Baseline", {}, h("div", {class: "card-body stack"}, h("p", null, [accepted.size && count(accepted.size, "finding") + " accepted", withdrawn.size && `${withdrawn.size} withdrawn`].filter(Boolean).join(", "), ". It is written down, and given to you as a file for ", h("code", null, "madlab scan --baseline"), "."),
      h("div", {class: "acts"}, actButton("Take the baseline along", take, {kind: "primary"})))));
  }

  async function take() {
    const made = await post(`${path}/baseline`, {accept: [...accepted.values()], withdraw: [...withdrawn]});
    save(JSON.stringify(made, null, 2), "application/json", "baseline.json");
    toast(`baseline.json has ${count(made.accepted.length, "finding")}.`);
  }

  // --- beside it

  function drawSide() {
    const {coverage} = report;
    replace(side, basket,
      card("About", {}, h("div", {class: "card-body stack"}, facts([["Source", foreign(report.name, 200)], ["Run", link(runHref(id), h("span", {class: "mono"}, id))], ["Ended", when(report.run.ended, {as: "clock"})],
        ["Compared with", report.comparison ? link(reportHref(report.comparison.against), h("span", {class: "mono"}, report.comparison.against)) : null]]),
        h("div", {class: "acts"}, ["html", "sarif", "json", "csv"].map((each) => actButton([icon("down"), each.toUpperCase()], () => fetched(`${path}.${each}`, `report-${id}.${each}`), {kind: "small"}))))),
      card("Scanners", {}, h("ul", {class: "proof card-body"}, coverage.scanners.map((each) => h("li", null, state(/^(ok|no )/.test(each.state) ? "good" : "warn", foreign(`${each.name} ${each.version}`, 100)), !/^ok$/.test(each.state) && h("span", {class: "quiet-text"}, foreign(each.state, 300)))))),
      report.comparison?.gone.length > 0 && card(["Gone since", h("span", {class: "tag good"}, String(report.comparison.gone_count))], {}, h("ul", {class: "plain card-body"}, report.comparison.gone.slice(0, SKIPPED).map((each) => h("li", null, severity(each.severity), " ", foreign(`${each.path}:${each.line} ${each.rule}`, 300))))),
      coverage.skipped_count > 0 && card(["Not scanned", h("span", {class: "tag warn"}, String(coverage.skipped_count))], {}, h("ul", {class: "plain card-body"}, coverage.skipped.slice(0, SKIPPED).map((each) => h("li", null, h("span", {class: "mono"}, foreign(each.path, 300)), " ", h("span", {class: "quiet-text"}, foreign(each.reason, 300)))))),
      report.accepted.length > 0 && card("Accepted before the scan", {}, h("ul", {class: "plain card-body"}, report.accepted.map((each) => h("li", null, h("code", null, foreign(each.id, 60)), " ", foreign(`${each.reason} (${each.who}, until ${each.until})`, 400), " ",
        button(withdrawn.has(each.id) ? "Keep it" : "Withdraw", () => {
          withdrawn.has(each.id) ? withdrawn.delete(each.id) : withdrawn.add(each.id);
          drawSide();
          drawBasket();
        }, {kind: "small"}))))));
  }

  function change(values) {
    Object.assign(filters, values);
    page.setQuery(values);
    return load().catch((error) => toast(said(error), "bad"));
  }

  await load();
  const rules = [["", "any"], ...report.rules.map((each) => [each.name, `${shown(each.name, 60)} (${each.count})`])];
  const bar = h("div", {class: "filters", role: "search", "aria-label": "Filter findings"}, search("Rule, path or words", filters.q, (q) => change({q})),
    choice("Severity", [["", "any"], ...SEVERITIES.map((each) => [each, each])], filters.severity, (value) => change({severity: value})), choice("Rule", rules, filters.rule, (value) => change({rule: value})),
    choice("Group by", GROUPS, group, (value) => {
      group = value;
      page.setQuery({group: value});
      drawList();
    }), choice("Order", ORDERS, order, (value) => {
      order = value;
      page.setQuery({order: value});
      drawList();
    }));
  const node = h("div", null, head(["Scan of ", foreign(report.name || id, 160)], {crumbs: link("/reports", "Reports"), note: h("span", {class: "run-title"}, runState(report.run), report.run.reason && foreign(report.run.reason, 400))}),
    h("div", {class: "stack"}, top, h("div", {class: "columns"}, h("div", null, bar, h("section", {class: "card", "aria-label": "Findings"}, h("div", {class: "card-head"}, h("h2", null, "Findings"), summary), list)), side)));
  return {title: `Report ${id}`, node, topics: []};
}

const labelled = (name, input) => h("label", {class: "field"}, h("span", null, name), input);

/** Lines of code with one marked. */
function source(lines, marked) {
  return h("table", {class: "source", "aria-label": "Code"}, h("tbody", null, lines.map((each) => h("tr", {class: each.number === marked && lines.length > 1 ? "marked" : ""}, h("td", null, each.number, each.number === marked && lines.length > 1 && h("span", {class: "unseen"}, " (the finding)")), h("td", null, h("bdi", {dir: "ltr"}, shown(each.text, 600)))))));
}

async function fetched(path, name) {
  const answer = await request(path, {wait: 120_000});
  save(await answer.arrayBuffer(), "application/octet-stream", name);
}

function save(content, type, name) {
  const address = URL.createObjectURL(new Blob([content], {type}));
  h("a", {href: address, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
