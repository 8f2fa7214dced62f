// Each requirement can fail: the stack is changed for the worse, and the requirement by that name notices.
import assert from "node:assert/strict";
import { test } from "node:test";
import { CfnOutput, type CfnResource } from "aws-cdk-lib";
import { Peer, Port } from "aws-cdk-lib/aws-ec2";
import { PolicyStatement } from "aws-cdk-lib/aws-iam";
import type { IConstruct } from "constructs";
import type { InfrastructureStack } from "../lib/infrastructure-stack";
import { requirements } from "./requirements";
import { templateOf } from "./synthesis";

type Mutation = (stack: InfrastructureStack) => unknown;

/** Overwrites, or with undefined deletes, one property of a construct's resource. */
function set(construct: IConstruct, path: string, value?: unknown): void {
  const resource = (construct.node.defaultChild ?? construct) as CfnResource;
  resource.addPropertyOverride(path, value);
}

function grant(action: string, resource = "arn:aws:s3:::another"): Mutation {
  return ({ training }) => training.role.addToPolicy(new PolicyStatement({ actions: [action], resources: [resource] }));
}

const container = "ContainerDefinitions.0";

/** [the requirement, how the stack gets worse, what is done to it] */
const mutations: [string, string, Mutation][] = [
  [
    "the bucket refuses plain HTTP and old TLS",
    "TLS rule removed",
    ({ storage }) => storage.bucket.policy && set(storage.bucket.policy, "PolicyDocument.Statement", []),
  ],
  [
    "the bucket is private, encrypted and versioned",
    "public policies let through",
    ({ storage }) => set(storage.bucket, "PublicAccessBlockConfiguration.BlockPublicPolicy", false),
  ],
  [
    "the bucket is private, encrypted and versioned",
    "versions off",
    ({ storage }) => set(storage.bucket, "VersioningConfiguration"),
  ],
  [
    "the bucket is kept under a generated name",
    "name fixed",
    ({ storage }) => set(storage.bucket, "BucketName", "sdxl-nb"),
  ],
  [
    "old checkpoints and incomplete uploads go",
    "all rules off",
    ({ storage }) => set(storage.bucket, "LifecycleConfiguration"),
  ],
  [
    "images are scanned, and only the launcher's tag moves",
    "all tags move",
    ({ images }) => set(images.repository, "ImageTagMutability", "MUTABLE"),
  ],
  ["no role may do everything: no wildcard action, no managed policy", "wildcard action added", grant("s3:*")],
  [
    "no role may do everything: no wildcard action, no managed policy",
    "FullAccess added",
    ({ training }) => set(training.role, "ManagedPolicyArns", ["arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"]),
  ],
  ["only what takes no resource is allowed on all", "all buckets readable", grant("s3:GetObject", "*")],
  [
    "each role serves one service of this account",
    "any account's jobs",
    ({ training }) => set(training.role, "AssumeRolePolicyDocument.Statement.0.Condition"),
  ],
  [
    "only the training role is passed, and only to SageMaker",
    "another role passed",
    grant("iam:PassRole", "arn:aws:iam::111122223333:role/admin"),
  ],
  [
    "the launcher may create, update and start one pipeline",
    "every pipeline started",
    ({ launcher }) =>
      launcher.task.addToTaskRolePolicy(
        new PolicyStatement({ actions: ["sagemaker:StartPipelineExecution"], resources: ["arn:aws:sagemaker:::*"] }),
      ),
  ],
  [
    "the launcher says why an audit refused, and looks at no other job",
    "every job looked at",
    ({ launcher }) =>
      launcher.task.addToTaskRolePolicy(
        new PolicyStatement({ actions: ["sagemaker:DescribeTrainingJob"], resources: ["arn:aws:sagemaker:::job"] }),
      ),
  ],
  ["a training job reads named secrets and deletes nothing", "deletes", grant("s3:DeleteObject")],
  [
    "the task runs build_pipeline with what it needs to know",
    "bucket forgotten",
    ({ launcher }) => set(launcher.task, `${container}.Environment.1`),
  ],
  [
    "the task runs build_pipeline with what it needs to know",
    "root",
    ({ launcher }) => set(launcher.task, `${container}.User`),
  ],
  [
    "nothing reaches the task, and it reaches HTTPS",
    "SSH in",
    ({ network }) => network.securityGroup.addIngressRule(Peer.anyIpv4(), Port.SSH),
  ],
  [
    "images are built from the bucket's zip, and pushed only when built",
    "pushed in a later phase",
    ({ builder }) =>
      set(builder.project, "Source.BuildSpec", '{"phases": {"build": {"commands": []}, "post_build": {}}}'),
  ],
  ["logs end", "kept for ever", ({ launcher }) => set(launcher.node.findChild("Logs"), "RetentionInDays")],
  [
    "Studio's script fits, and a new one gets a new name",
    "name fixed",
    ({ kernel }) => set(kernel.node.findChild("LifecycleConfig"), "StudioLifecycleConfigName", "sdxl-nb-kernel"),
  ],
  [
    "the outputs have the names that the library reads",
    "one more",
    (stack) => new CfnOutput(stack, "Another", { value: "" }),
  ],
];

for (const [requirement, name, mutate] of mutations) {
  test(`noticed: ${name} (${requirement})`, () => {
    const template = templateOf(mutate);
    assert.throws(() => requirements[requirement]?.(template));
  });
}
