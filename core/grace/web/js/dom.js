// Builds the page's nodes. A string can become a text node and nothing else: there is no way from data to markup.
//
//   h("p", {class: "note"}, "Hello ", h("b", null, name))      elements; null and false children are left out
//   h("svg:path", {d})                                          the prefix says that it is SVG
//   {onclick: f}  listener   {data: {id}}  data-id   {vars: {"--x": "3px"}}  custom properties   {disabled: true}  bare

const SVG = "http://www.w3.org/2000/svg";
const REFUSED = new Set(["style", "srcdoc", "innerhtml", "outerhtml", "formaction", "action", "xlink:href"]);
const HERE = /^(?:\/(?!\/)|#|\?|blob:)/;

export function h(tag, props, ...children) {
  const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) set(node, name, value);
  append(node, children);
  return node;
}

/** Makes `children` all that is in `node`. What had the focus keeps it, or what is the same in its place gets it. */
export function replace(node, ...children) {
  const held = node.contains(document.activeElement) ? document.activeElement : null;
  const made = document.createDocumentFragment();
  append(made, children);
  node.replaceChildren(made);
  if (!held) return node;
  const same = held.isConnected ? held : [...node.querySelectorAll(held.tagName)].find((each) => sign(each) === sign(held));
  same?.focus({preventScroll: true});
  return node;
}

const sign = (node) => [node.getAttribute("href"), node.getAttribute("aria-label"), node.textContent].join(" ");
const drawn = new WeakMap();

/** The same, only when `value` is another than the last time: what a person has opened or selected there stays. */
export function replaceFor(value, node, make) {
  const json = JSON.stringify(value);
  if (drawn.get(node) === json) return node;
  drawn.set(node, json);
  return replace(node, make());
}

function set(node, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (typeof value === "function" && name.startsWith("on")) node.addEventListener(name.slice(2), value);
  else if (name === "data") Object.assign(node.dataset, value);
  else if (name === "vars") for (const [key, each] of Object.entries(value)) node.style.setProperty(key, each);
  else if (name === "value") node.value = value;
  else if (REFUSED.has(name.toLowerCase()) || /^on/i.test(name)) throw new TypeError(`${name} is not set from data`);
  else if ((name === "href" || name === "src") && !HERE.test(value)) throw new TypeError("only links within the page");
  else node.setAttribute(name, value === true ? "" : String(value));
}

function append(node, children) {
  for (const each of children.flat(Infinity)) {
    if (each === null || each === undefined || each === false || each === "") continue;
    node.append(each instanceof Node ? each : document.createTextNode(String(each)));
  }
}
