// The app as `cdk` would run it without credentials: cdk.json's context, the example account.
import { App } from "aws-cdk-lib";
import { Template } from "aws-cdk-lib/assertions";
import cdkJson from "../cdk.json";
import { addStack } from "../lib/infrastructure-app";
import type { InfrastructureStack } from "../lib/infrastructure-stack";

delete process.env.CDK_DEFAULT_ACCOUNT;
delete process.env.CDK_DEFAULT_REGION;

/** A new app with cdk.json's context. */
export function newApp(): App {
  return new App({ context: cdkJson.context });
}

/** The template of the stack, changed beforehand by `mutate`; neither cdk-nag nor the CDK's own checks see it. */
export function templateOf(mutate: (stack: InfrastructureStack) => unknown = () => {}): Template {
  const stack = addStack(newApp());
  mutate(stack);
  process.env.CDK_VALIDATION = "false"; // five seconds a process
  try {
    return Template.fromStack(stack);
  } finally {
    delete process.env.CDK_VALIDATION;
  }
}

export interface Statement {
  Action: string | string[];
  Resource: unknown;
  Condition?: unknown;
}

/** All statements of the roles' policies, with the policy's name. */
export function statements(template: Template): (Statement & { policy: string })[] {
  const policies = Object.entries(template.findResources("AWS::IAM::Policy"));
  return policies.flatMap(([policy, { Properties }]) =>
    Properties.PolicyDocument.Statement.map((statement: Statement) => ({ policy, ...statement })),
  );
}

/** A value that may be one or a list, as a list. */
export function list<T>(value: T | T[]): T[] {
  return Array.isArray(value) ? value : [value];
}
