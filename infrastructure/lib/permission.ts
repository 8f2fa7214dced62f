// One IAM statement with its reason: wildcard resources need one, and cdk-nag is told it; wildcard actions get none.
import { Stack, Validations } from "aws-cdk-lib";
import { PolicyStatement, type Role } from "aws-cdk-lib/aws-iam";

export interface Permission {
  readonly actions: string[];
  readonly resources: string[];
  readonly conditions?: Record<string, Record<string, string>>;
  /** Why a resource has a "*". */
  readonly because?: string;
}

/** Adds a statement to a role's policy. */
export function allow(role: Role, { actions, resources, conditions, because }: Permission): void {
  role.addToPolicy(new PolicyStatement({ actions, resources, conditions }));
  for (const resource of because ? resources.map((arn) => written(role, arn)) : []) {
    if (resource.includes("*")) {
      Validations.of(role).acknowledge({ id: `AwsSolutions-IAM5[Resource::${resource}]`, reason: because ?? "" });
    }
  }
}

/** "arn:aws:SERVICE:REGION:ACCOUNT", the beginning of an ARN in a role's account and region. */
export function arnOf(role: Role, service: string): string {
  const { partition, region, account } = Stack.of(role);
  return `arn:${partition}:${service}:${region}:${account}`;
}

/** An ARN as cdk-nag writes it in a finding's name: a reference to another resource is <LogicalId.Attribute>. */
function written(role: Role, arn: string): string {
  const value = Stack.of(role).resolve(arn);
  const parts: unknown[] = value?.["Fn::Join"]?.[1] ?? [value];
  return parts.map((part) => (typeof part === "string" ? part : reference(part))).join("");
}

function reference(part: unknown): string {
  const { Ref, "Fn::GetAtt": attribute } = part as { Ref?: string; "Fn::GetAtt"?: string[] };
  return `<${Ref ?? attribute?.join(".")}>`;
}
