// The template meets every requirement, and is the reviewed one: UPDATE_SNAPSHOT=1 npm test writes it anew.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { requirements } from "./requirements";
import { templateOf } from "./synthesis";

const snapshot = join(__dirname, "template.snapshot.json");
const template = templateOf();

for (const [name, holds] of Object.entries(requirements)) {
  test(name, () => holds(template));
}

test("the template is the reviewed one", () => {
  const found = template.toJSON();
  if (process.env.UPDATE_SNAPSHOT) {
    writeFileSync(snapshot, `${JSON.stringify(found, null, 1)}\n`);
  }
  assert.deepEqual(found, JSON.parse(readFileSync(snapshot, "utf8")));
});
