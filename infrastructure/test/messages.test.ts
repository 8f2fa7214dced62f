// What a person reads when something is missing: one sentence each.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { App } from "aws-cdk-lib";
import { Annotations, Match } from "aws-cdk-lib/assertions";
import { addStack } from "../lib/infrastructure-app";
import { newApp } from "./synthesis";

/** Runs bin/node-version.cjs as if this were that Node. */
function onNode(version: string) {
  const script = join(__dirname, "../bin/node-version.cjs");
  const code = `Object.defineProperty(process.versions, "node", { value: "${version}" }); require(${JSON.stringify(script)})`;
  return spawnSync(process.execPath, ["-e", code], { encoding: "utf8" });
}

test("an old Node", () => {
  const { status, stderr } = onNode("18.20.8");
  assert.equal(status, 1);
  assert.equal(stderr, "The infrastructure needs Node 20 or newer and this is 18.20.8: install it from nodejs.org.\n");
});

test("a Node that is new enough", () => {
  for (const version of ["20.0.0", "24.3.1", "100.0.0"]) {
    const { status, stderr } = onNode(version);
    assert.deepEqual([status, stderr], [0, ""]);
  }
});

test("no credentials", () => {
  const stack = addStack(newApp());
  Annotations.fromStack(stack).hasInfo(
    "/SdxlNb",
    Match.stringLikeRegexp("^No AWS credentials were found, .*aws configure"),
  );
});

/** The context's name for what was found out about a VPC in that account. */
const lookup = (filter: string) =>
  `vpc-provider:account=222233334444:filter.${filter}:region=eu-west-1:returnAsymmetricSubnets=true`;
const none = { $providerError: "Could not find any VPCs matching", $dontSaveContext: true };

test("no default VPC", () => {
  assert.deepEqual(errors({ [lookup("isDefault=true")]: none }), [
    "There is no default VPC in eu-west-1 of account 222233334444: make one with `aws ec2 create-default-vpc`, " +
      "or name another with `npx cdk deploy -c vpcId=vpc-...`.",
  ]);
});

test("a VPC that is not there", () => {
  assert.deepEqual(errors({ vpcId: "vpc-1", [lookup("vpc-id=vpc-1")]: none }), [
    "There is no VPC vpc-1 in eu-west-1 of account 222233334444: correct the id, " +
      "or name another with `npx cdk deploy -c vpcId=vpc-...`.",
  ]);
});

test("a VPC without a public subnet", () => {
  const found = { vpcId: "vpc-1", availabilityZones: [], subnetGroups: [] };
  assert.deepEqual(errors({ vpcId: "vpc-1", [lookup("vpc-id=vpc-1")]: found }), [
    "VPC vpc-1 has no public subnet for the launcher: name another with `npx cdk deploy -c vpcId=vpc-...`.",
  ]);
});

/** What the stack says in an account that is not the example's, as the CDK's lookups left the context. */
function errors(context: Record<string, unknown>): unknown[] {
  const found = Annotations.fromStack(inAccount(context)).findError("*", Match.anyValue());
  return found.map(({ entry }) => entry.data);
}

/** The stack for an account that is not the example's, as the CDK's lookups left the context. */
function inAccount(context: Record<string, unknown>) {
  process.env.CDK_DEFAULT_ACCOUNT = "222233334444";
  process.env.CDK_DEFAULT_REGION = "eu-west-1";
  try {
    return addStack(new App({ context }));
  } finally {
    delete process.env.CDK_DEFAULT_ACCOUNT;
    delete process.env.CDK_DEFAULT_REGION;
  }
}
