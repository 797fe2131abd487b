import assert from "node:assert/strict";
import { test } from "node:test";

import { slug } from "../src/slug.js";

test("one blank", () => assert.equal(slug("Hello World"), "hello-world"));

test("many blanks", () => assert.equal(slug("a  b c"), "a-b-c"));

test("none at the ends", () => assert.equal(slug(" What now? "), "what-now"));
