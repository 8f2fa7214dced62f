// A CodeBuild project that builds the Dockerfile from a source zip in the bucket and pushes it: nobody needs docker.
import { Duration, RemovalPolicy, Stack, Validations } from "aws-cdk-lib";
import { BuildSpec, ComputeType, LinuxBuildImage, Project, Source } from "aws-cdk-lib/aws-codebuild";
import type { IRepository } from "aws-cdk-lib/aws-ecr";
import { type IRole, Role, ServicePrincipal } from "aws-cdk-lib/aws-iam";
import { LogGroup, RetentionDays } from "aws-cdk-lib/aws-logs";
import type { IBucket } from "aws-cdk-lib/aws-s3";
import { Construct } from "constructs";
import { allow } from "../permission";
import { launcherTag } from "./image-repository";
import { sourceKey } from "./model-bucket";

/** Docker Hub's image from AWS's own mirror: CodeBuild's addresses share Docker Hub's limit with everybody. */
const baseImage = "public.ecr.aws/docker/library/python:3.12-slim-bookworm";

const pushing = [
  "ecr:BatchCheckLayerAvailability",
  "ecr:BatchGetImage",
  "ecr:CompleteLayerUpload",
  "ecr:GetDownloadUrlForLayer",
  "ecr:InitiateLayerUpload",
  "ecr:PutImage",
  "ecr:UploadLayerPart",
];

export interface ImageBuilderProps {
  readonly bucket: IBucket;
  readonly repository: IRepository;
}

export class ImageBuilder extends Construct {
  readonly project: Project;
  readonly projectName = "sdxl-nb-image";

  constructor(scope: Construct, id: string, props: ImageBuilderProps) {
    super(scope, id);
    const logs = new LogGroup(this, "Logs", {
      retention: RetentionDays.ONE_MONTH,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    this.project = new Project(this, "Project", {
      projectName: this.projectName,
      description: "sdxl_nb: builds the training image from the bucket's source zip",
      source: Source.s3({ bucket: props.bucket, path: sourceKey }),
      environment: {
        buildImage: LinuxBuildImage.AMAZON_LINUX_2023_5,
        computeType: ComputeType.MEDIUM, // 128 GB of disk: the image is large
        privileged: true,
      },
      environmentVariables: {
        BASE_IMAGE: { value: baseImage },
        IMAGE_TAG: { value: "" },
        REPOSITORY_URI: { value: props.repository.repositoryUri },
      },
      buildSpec: BuildSpec.fromObject({ version: "0.2", phases: { build: { commands: this.commands() } } }),
      logging: { cloudWatch: { logGroup: logs } },
      role: this.builderRole(props, logs),
      grantReportGroupPermissions: false,
      timeout: Duration.hours(1),
      queuedTimeout: Duration.hours(1),
    });
    Validations.of(this.project).acknowledge(
      {
        id: "AwsSolutions-CB3",
        reason: "docker build needs a privileged build; its source is this account's own bucket.",
      },
      { id: "AwsSolutions-CB4", reason: "It leaves no artefact to encrypt; ECR encrypts the image." },
    );
  }

  /** One phase: CodeBuild would go on to a later phase after a failure, and push what was not built. */
  private commands(): string[] {
    return [
      // biome-ignore-start lint/suspicious/noTemplateCurlyInString: the shell's, not TypeScript's
      'aws ecr get-login-password | docker login --username AWS --password-stdin "${REPOSITORY_URI%%/*}"',
      'IMAGE="$REPOSITORY_URI:${IMAGE_TAG:-$(date -u +%Y%m%d-%H%M%S)}"',
      'docker build --build-arg BASE_IMAGE="$BASE_IMAGE" --tag "$IMAGE" .',
      'docker push "$IMAGE"',
      `docker tag "$IMAGE" "$REPOSITORY_URI:${launcherTag}" && docker push "$REPOSITORY_URI:${launcherTag}"`,
      // biome-ignore-end lint/suspicious/noTemplateCurlyInString: the shell's, not TypeScript's
    ];
  }

  /** Reads the zip, pushes to the repository, writes its log; closed, so that the CDK adds no statement of its own. */
  private builderRole(props: ImageBuilderProps, logs: LogGroup): IRole {
    const role = new Role(this, "Role", {
      description: "sdxl_nb: what building the training image may do",
      assumedBy: new ServicePrincipal("codebuild.amazonaws.com", {
        conditions: { StringEquals: { "aws:SourceAccount": Stack.of(this).account } },
      }),
    });
    allow(role, { actions: ["s3:GetBucketAcl", "s3:GetBucketLocation"], resources: [props.bucket.bucketArn] });
    allow(role, {
      actions: ["s3:GetObject", "s3:GetObjectVersion"],
      resources: [props.bucket.arnForObjects(sourceKey)],
    });
    allow(role, {
      actions: ["ecr:GetAuthorizationToken"],
      resources: ["*"],
      because: "ecr:GetAuthorizationToken takes no resource.",
    });
    allow(role, { actions: pushing, resources: [props.repository.repositoryArn] });
    allow(role, { actions: ["logs:CreateLogStream", "logs:PutLogEvents"], resources: [logs.logGroupArn] });
    return role.withoutPolicyUpdates();
  }
}
