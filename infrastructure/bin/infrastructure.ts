// The CDK app: one stack, in the account and region of the AWS credentials, checked against AWS Solutions.
import { App } from "aws-cdk-lib";
import { build } from "../lib/infrastructure-app";

build(new App());
