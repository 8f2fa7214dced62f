// What `cdk` runs and what the tests build: the stack, where it goes, and the checks that every synthesis passes.
import { Annotations, type App, Tags, Validations } from "aws-cdk-lib";
import { AwsSolutionsChecks } from "cdk-nag";
import { InfrastructureStack } from "./infrastructure-stack";

/** AWS's documentation account, whose default VPC is recorded in cdk.json: so the template can be made anywhere. */
const example = { account: "111122223333", region: "us-east-1" };

/** What `cdk` runs: the stack, and AWS Solutions over it. */
export function build(app: App): InfrastructureStack {
  const stack = addStack(app);
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  return stack;
}

/** The stack in the account of the AWS credentials; without any, in the example account. */
export function addStack(app: App): InfrastructureStack {
  const account = process.env.CDK_DEFAULT_ACCOUNT;
  const region = process.env.CDK_DEFAULT_REGION ?? example.region;
  const stack = new InfrastructureStack(app, "SdxlNb", { env: account ? { account, region } : example });
  Tags.of(stack).add("project", "sdxl-nb");
  if (!account) {
    Annotations.of(stack).addInfo(
      "No AWS credentials were found, so this is an example that cannot be deployed: " +
        "run `aws configure`, or set AWS_PROFILE, and try again.",
    );
  }
  return stack;
}
