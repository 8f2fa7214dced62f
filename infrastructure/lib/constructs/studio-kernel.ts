// A JupyterLab lifecycle configuration for SageMaker Studio: it installs the kernel "sdxl-nb" where it persists.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Fn } from "aws-cdk-lib";
import type { IBucket } from "aws-cdk-lib/aws-s3";
import { CfnStudioLifecycleConfig } from "aws-cdk-lib/aws-sagemaker";
import { Construct } from "constructs";
import { sourceKey } from "./model-bucket";

const script = readFileSync(join(__dirname, "../../studio/install-kernel.sh"), "utf8");

export interface StudioKernelProps {
  readonly bucket: IBucket;
}

export class StudioKernel extends Construct {
  constructor(scope: Construct, id: string, props: StudioKernelProps) {
    super(scope, id);
    const source = `s3://${props.bucket.bucketName}/${sourceKey}`;
    // A changed script replaces the configuration, and two cannot share a name.
    const version = createHash("sha256").update(script).digest("hex").slice(0, 8);
    new CfnStudioLifecycleConfig(this, "LifecycleConfig", {
      studioLifecycleConfigName: `sdxl-nb-kernel-${version}`,
      studioLifecycleConfigAppType: "JupyterLab",
      studioLifecycleConfigContent: Fn.base64(`#!/bin/bash\nexport SDXL_NB_SOURCE=${source}\n${script}`),
    });
  }
}
