import assert from "node:assert/strict";
import { test } from "node:test";

import { slug } from "./src/slug.js";

test("punctuation and letters of other scripts", () => {
  assert.equal(slug("Über, uns: 2 & more!"), "über-uns-2-more");
  assert.equal(slug("a  b c"), "a-b-c");
});
