// cdk-nag's AWS Solutions: no finding is open, each acknowledged one has a reason, and the checks do bite.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { CfnResource } from "aws-cdk-lib";
import { PolicyStatement } from "aws-cdk-lib/aws-iam";
import { build } from "../lib/infrastructure-app";
import { newApp } from "./synthesis";

/** Every acknowledged finding of the stack with its reason; the CDK's own, about zones, are left out. */
function acknowledged(): [string, string][] {
  const constructs = build(newApp()).node.findAll();
  const entries = constructs.flatMap((construct) => construct.node.metadata);
  return entries
    .filter(({ type }) => type === "aws:cdk:acknowledged-rules")
    .flatMap(({ data }) => Object.entries<string>(data))
    .filter(([finding]) => finding.includes("AwsSolutions"));
}

test("no finding is open, on a stack that is not empty", () => {
  const app = newApp();
  const stack = build(app);
  assert.ok(stack.node.findAll().filter(CfnResource.isCfnResource).length > 15);
  const report = readFileSync(join(app.synth().directory, "validation-report.json"), "utf8");
  assert.deepEqual(JSON.parse(report).pluginReports, []);
});

test("each acknowledged finding is one finding, with a reason", () => {
  const all = acknowledged();
  assert.equal(all.length, 23);
  for (const [finding, reason] of all) {
    assert.match(finding, /AwsSolutions-(IAM5\[Resource::.+\]|S1|ECS2|CB3|CB4)$/);
    assert.match(reason, /^.{25,}\.$/);
  }
});

test("a wildcard action fails the synthesis", () => {
  const app = newApp();
  const stack = build(app);
  stack.training.role.addToPolicy(new PolicyStatement({ actions: ["s3:*"], resources: ["arn:aws:s3:::another"] }));
  assert.throws(() => app.synth(), /Validation failed/);
});
