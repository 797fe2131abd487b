// One patch: what changed on the left and right, what speaks for it beside it, and the three things a person can decide.

import {download, get, post} from "./api.js";
import {diffView, fileTree, stepTo} from "./diff.js";
import {h, replace} from "./dom.js";
import {bytes, count, money, shown, span, tokens} from "./format.js";
import {icon} from "./icon.js";
import {actButton, announce, button, card, facts, figure, foreign, head, link, runState, said, state, toast, when} from "./parts.js";
import {patchState, size} from "./view_patches.js";
import {runHref} from "./view_runs.js";

const NARROW = matchMedia("(max-width: 1100px)");
const FLAGS = 60;

export async function view({run: id}, page) {
  await page.style("places.css");
  const path = `/runs/${encodeURIComponent(id)}/patch`;
  let patch = await get(path, {}, {signal: page.signal});
  const evidence = patch.evidence;
  const look = {side: !NARROW.matches, blank: false};
  const diff = diffView(patch.files, (number) => get(path, {file: number}));
  diff.show(look);

  const acts = h("div", {class: "acts"});
  const decision = h("div", null);

  function drawHead() {
    const waits = patch.state === "waiting";
    replace(acts, waits && [
      button("Approve to a branch", approve, {kind: "primary"}),
      button("Send back", sendBack), button("Drop", drop, {kind: "danger"})]);
    replace(decision, !waits && decided());
    decision.hidden = waits;
  }

  function decided() {
    const {decision: what, by, at, details, result} = patch.decision;
    const told = {
      apply: () => [["Branch", h("code", null, foreign(details.branch, 250))], ["Commit", h("code", null, foreign(result.commit, 60))], ["Repository", foreign(details.repository, 400)],
        result.merged?.length ? ["Merged with HEAD", foreign(result.merged.join(", "), 600)] : ["Take it with", h("code", null, shown(`git merge ${details.branch}`, 300))]],
      send_back: () => [["Remark", h("div", {class: "text"}, foreign(details.remark, 2000))], ["Goes on as", link(runHref(result.run), h("span", {class: "mono"}, result.run))]],
      drop: () => [],
    }[what]();
    return card([{apply: "Approved", send_back: "Sent back", drop: "Dropped"}[what], patchState(patch.state)], {}, h("div", {class: "card-body"},
      facts([["By", foreign(by, 100)], ["When", when(at, {as: "clock"})], ...told])));
  }

  // --- the three acts

  function settled(answer) {
    patch = {...patch, state: answer.state, decision: answer.decision};
    document.querySelector("dialog[open]")?.close(); // or nothing beside it takes the focus
    drawHead();
    const heading = decision.querySelector("h2");
    heading.tabIndex = -1;
    heading.focus();
    announce(`The patch is ${answer.state.replace("_", " ")}.`);
  }

  function approve() {
    const branch = h("input", {type: "text", value: patch.branch, required: true, spellcheck: "false", autocomplete: "off"});
    const place = h("input", {type: "text", value: patch.repository?.path ?? "", required: true, spellcheck: "false", autocomplete: "off", placeholder: "/home/me/project"});
    const below = h("input", {type: "text", value: patch.repository?.below ?? "", spellcheck: "false", autocomplete: "off", placeholder: "its top"});
    const flags = patch.warnings.some((each) => each.startsWith("refused") || / adds a/.test(each)) && h("input", {type: "checkbox"});
    form({title: "Approve to a branch", yes: "Make the branch", text: "One commit on a new branch, on top of HEAD. Your work tree, index, hooks and configuration are not touched.",
      body: [field("Branch", branch), field("Repository", place, patch.repository ? null : patch.repository_trouble), field("Directory in it", below),
        flags && h("label", {class: "check"}, flags, h("span", null, "I have seen the warnings: parts were refused, or it adds what looks like a secret."))],
      async act() {
        const told = {branch: branch.value.trim(), repository: place.value.trim(), below: below.value.trim(), accept_flags: flags ? flags.checked : false};
        if (told.repository === patch.repository?.path && told.below === patch.repository?.below) {
          delete told.repository; // the place that was asked for, with the directory in it
          delete told.below;
        }
        settled(await post(`${path}/apply`, told));
        toast(`It is on ${told.branch}.`);
      }});
  }

  function sendBack() {
    const remark = h("textarea", {rows: "5", required: true, maxlength: "2000"});
    form({title: "Send it back", yes: "Send back", text: "A new run begins from this patch, for the same goal, within the same limits. It reads your remark first.",
      body: [field("What shall be different", remark)],
      async act() {
        const answer = await post(`${path}/send-back`, {remark: remark.value.trim()});
        settled(answer);
        toast(`It goes on as ${answer.decision.result.run}.`);
      }});
  }

  function drop() {
    form({title: "Drop this patch", yes: "Drop it", kind: "danger", text: "It is not taken, and that is written down. Its files stay with the run as long as files are kept.", body: [],
      async act() {
        settled(await post(`${path}/drop`));
      }});
  }

  // --- what speaks for it

  function verdict(title, test, note) {
    if (!test) return h("li", null, state("off", title), h("span", {class: "quiet-text"}, note ?? "not run"));
    const good = test.found && test.passed;
    return h("li", null, state(!test.found ? "warn" : good ? "good" : "bad", title), h("span", null, foreign(note ?? "", 300)), test.command && !note?.includes(test.command) && h("code", {class: "cut-code"}, foreign(test.command, 200)),
      test.tail && !good && h("details", null, h("summary", null, "What it said"), h("pre", {class: "json", tabindex: "0"}, shown(test.tail, 6000))));
  }

  const side = h("div", {class: "stack"},
    decision,
    card("Proof", {}, h("ul", {class: "proof card-body"},
      verdict("Before", evidence.tests_before, patch.said.before), verdict("As its author says", evidence.tests_after),
      verdict("In a clean sandbox", evidence.clean_room_tests, patch.said.clean_room),
      evidence.original_tests && verdict("With the tests as they were", evidence.original_tests),
      evidence.control && h("li", null, state(evidence.control.state === "noticed" ? "good" : "warn", "Can its tests fail?"), h("span", null, foreign(evidence.control.state === "noticed" ? "yes: tests that must fail did" : `${evidence.control.state}${evidence.control.why ? `: ${evidence.control.why}` : ""}`, 300))))),
    patch.warnings.length > 0 && card(["Look at", h("span", {class: "tag warn"}, String(patch.warnings.length))], {}, h("ul", {class: "plain card-body"},
      patch.warnings.slice(0, FLAGS).map((each) => h("li", {class: "warning"}, icon("warn"), foreign(each, 600))), patch.warnings.length > FLAGS && h("li", null, `and ${patch.warnings.length - FLAGS} more`))),
    card("What was asked", {}, h("div", {class: "card-body stack"}, h("div", {class: "text"}, foreign(patch.goal, 12_000)),
      facts([["Run", link(runHref(id), h("span", {class: "mono"}, id))], ["Author", foreign([evidence.agent, evidence.model].filter(Boolean).join(", ") || "unknown", 200)],
        ["Mind", evidence.small_model ? state("warn", "a small model: read with care") : null], ["Began from", patch.base ? h("code", null, foreign(patch.base.slice(0, 12), 40)) : null], ["Source", foreign(patch.name, 200)],
        ["Steps", evidence.steps ? String(evidence.steps) : null], ["Tries", evidence.attempts?.length > 1 ? String(evidence.attempts.length) : null]]),
      evidence.summary && h("details", {open: true}, h("summary", null, "What its author says"), h("div", {class: "text"}, foreign(evidence.summary, 4000))),
      evidence.review && h("details", null, h("summary", null, "What a reviewing model says"), h("div", {class: "text"}, foreign(evidence.review, 4000))))),
    evidence.commands?.length > 0 && card(["Commands it ran", h("span", {class: "tag quiet"}, String(evidence.commands.length))], {}, h("ol", {class: "commands card-body"},
      evidence.commands.map((each) => h("li", {class: each.exit_code === 0 ? "good" : "bad"}, icon(each.exit_code === 0 ? "good" : "bad"), h("code", null, foreign(each.command, 300)), h("span", {class: "quiet-text"}, each.exit_code === 0 ? "" : `exit code ${each.exit_code}`))))));

  // --- the diff and how one moves in it

  const files = diff.files;
  const goFile = (number) => {
    files[number].open();
    files[number].node.scrollIntoView({block: "start"});
    files[number].node.querySelector("summary").focus({preventScroll: true});
  };
  const layout = button(look.side ? "Unified" : "Side by side", () => {
    look.side = !look.side;
    layout.textContent = look.side ? "Unified" : "Side by side";
    diff.show(look);
  }, {kind: "small"});
  const blank = button("Ignore blanks", () => {
    look.blank = !look.blank;
    blank.setAttribute("aria-pressed", String(look.blank));
    diff.show(look);
  }, {kind: "small", "aria-pressed": "false"});
  const bar = h("div", {class: "diff-bar"}, h("span", null, count(patch.size.files, "file"), " ", size(patch.size)), h("div", {class: "acts"},
    h("span", {class: "quiet-text keys-hint"}, h("kbd", null, "n"), " ", h("kbd", null, "p"), " changes ", h("kbd", null, "]"), " ", h("kbd", null, "["), " files"),
    blank, layout, actButton([icon("down"), "patch.diff"], () => download(`/blobs/${encodeURIComponent(patch.diff.digest)}`, `${id}.diff`), {kind: "small"})));

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select, dialog") || document.querySelector("dialog[open]")) return;
    const hunks = () => [...diff.node.querySelectorAll(".diff-file[open] .hunk")];
    const heads = () => files.map((each) => each.node.querySelector("summary"));
    const act = {n: () => stepTo(hunks(), 1), p: () => stepTo(hunks(), -1), "]": () => stepTo(heads(), 1), "[": () => stepTo(heads(), -1), w: () => blank.click(), s: () => layout.click()}[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
  addEventListener("keydown", pressed);
  const widened = () => {
    look.side = !NARROW.matches;
    layout.textContent = look.side ? "Unified" : "Side by side";
    diff.show(look);
  };
  NARROW.addEventListener("change", widened);

  drawHead();
  const cost = patch.run.cost ?? {};
  const whole = patch.diff.read < patch.diff.size && h("p", {class: "diff-note"}, icon("warn"), `Only the first ${bytes(patch.diff.read)} of ${bytes(patch.diff.size)} are shown: the rest is in the file. Read it before you approve.`);
  const node = h("div", {class: "patch-page"}, head(h("span", {class: "patch-title"}, foreign(patch.goal.split("\n")[0] || id, 160)), {crumbs: link("/patches", "Patches"), acts,
    note: h("span", {class: "run-title"}, runState(patch.run), patchState(patch.state), patch.run.reason && foreign(patch.run.reason, 400))}),
    h("div", {class: "stack"},
      h("dl", {class: "figures"}, figure("Files", String(patch.size.files)), figure("Lines", size(patch.size)), figure("Proof", patch.proved ? "proved" : "not proved", {note: patch.said.clean_room, tone: patch.proved ? "" : "warn"}),
        figure("Took", span(patch.run.started ? patch.run.ended - patch.run.started : null)), figure("Tokens", tokens(cost.tokens ?? null)), figure("Cost", money(cost.usd ?? null))),
      h("div", {class: "columns patch-columns"}, h("div", {class: "stack"}, h("section", {class: "card", "aria-label": "Changes"}, bar, whole, h("div", {class: "patch-tree"}, fileTree(patch.files, goFile)), diff.node)), side)));
  return {title: `Patch ${id}`, node, topics: [], leave() {
    removeEventListener("keydown", pressed);
    NARROW.removeEventListener("change", widened);
  }};
}

const field = (name, input, note) => h("label", {class: "field"}, h("span", null, name), input, note && h("small", {class: "quiet-text"}, shown(note, 300)));

/** A dialog with a form, which stays until its act has succeeded and says in place why it has not. */
function form({title, text, yes, kind = "primary", body, act}) {
  const trouble = h("p", {class: "trouble", role: "alert", hidden: true});
  const submit = h("button", {type: "submit", class: `button ${kind}`}, yes);
  const dialog = h("dialog", {class: "dialog wide", "aria-labelledby": "form-title", onclose: () => dialog.remove()},
    h("h2", {id: "form-title"}, title), h("p", null, text),
    h("form", {class: "stack", onsubmit: async (event) => {
      event.preventDefault();
      submit.disabled = true;
      trouble.hidden = true;
      try {
        await act();
        dialog.close();
      } catch (error) {
        trouble.textContent = shown(said(error), 2000);
        trouble.hidden = false;
      } finally {
        submit.disabled = false;
      }
    }}, body, trouble, h("div", {class: "acts"}, button("Cancel", () => dialog.close()), submit)));
  document.body.append(dialog);
  dialog.showModal();
}
