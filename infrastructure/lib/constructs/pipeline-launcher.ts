// The Fargate task that builds and starts the SageMaker pipeline: python -m sdxl_nb.build_pipeline, and its two roles.
import { RemovalPolicy, Stack, Validations } from "aws-cdk-lib";
import type { IVpc } from "aws-cdk-lib/aws-ec2";
import type { IRepository } from "aws-cdk-lib/aws-ecr";
import {
  Cluster,
  ContainerImage,
  ContainerInsights,
  CpuArchitecture,
  FargateTaskDefinition,
  LogDrivers,
  OperatingSystemFamily,
} from "aws-cdk-lib/aws-ecs";
import { type IRole, Role, ServicePrincipal } from "aws-cdk-lib/aws-iam";
import { LogGroup, RetentionDays } from "aws-cdk-lib/aws-logs";
import type { IBucket } from "aws-cdk-lib/aws-s3";
import { Construct } from "constructs";
import { allow, arnOf } from "../permission";
import { launcherTag } from "./image-repository";

export interface PipelineLauncherProps {
  readonly bucket: IBucket;
  readonly repository: IRepository;
  readonly trainingRole: IRole;
  readonly vpc: IVpc;
  readonly pipelineName: string;
}

export class PipelineLauncher extends Construct {
  readonly cluster: Cluster;
  readonly task: FargateTaskDefinition;
  readonly containerName = "build-pipeline";

  constructor(scope: Construct, id: string, props: PipelineLauncherProps) {
    super(scope, id);
    const logs = new LogGroup(this, "Logs", {
      retention: RetentionDays.ONE_MONTH,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    this.cluster = new Cluster(this, "Cluster", { vpc: props.vpc, containerInsightsV2: ContainerInsights.ENABLED });
    this.task = new FargateTaskDefinition(this, "Task", {
      cpu: 1024,
      memoryLimitMiB: 4096,
      ephemeralStorageGiB: 50, // the image carries PyTorch and CUDA, and Fargate unpacks it here
      runtimePlatform: { cpuArchitecture: CpuArchitecture.X86_64, operatingSystemFamily: OperatingSystemFamily.LINUX },
      taskRole: this.launcherRole(props),
      executionRole: this.startRole(props.repository, logs),
    });
    this.task.addContainer(this.containerName, {
      image: ContainerImage.fromEcrRepository(props.repository, launcherTag),
      entryPoint: ["python", "-m", "sdxl_nb.build_pipeline"], // so that a task's command is build_pipeline's flags
      memoryLimitMiB: 4096,
      user: "sdxl-nb",
      environment: {
        AWS_REGION: Stack.of(this).region,
        BUCKET_NAME: props.bucket.bucketName,
        SDXL_NB_ROLE_ARN: props.trainingRole.roleArn,
      },
      logging: LogDrivers.awsLogs({ logGroup: logs, streamPrefix: "launcher" }),
    });
    Validations.of(this.task).acknowledge({
      id: "AwsSolutions-ECS2",
      reason: "The three variables are names of this stack's resources and no secret.",
    });
  }

  /** What build_pipeline may do: this pipeline, this role, this stack's outputs, lists of this repository and bucket. */
  private launcherRole(props: PipelineLauncherProps): Role {
    const role = this.taskRole("LauncherRole", "sdxl_nb: what the pipeline's launcher may do");
    const pipeline = `${arnOf(role, "sagemaker")}:pipeline/${props.pipelineName}`;
    allow(role, {
      actions: [
        "sagemaker:AddTags",
        "sagemaker:CreatePipeline",
        "sagemaker:StartPipelineExecution",
        "sagemaker:UpdatePipeline",
      ],
      resources: [pipeline],
    });
    allow(role, {
      actions: ["sagemaker:DescribePipelineExecution", "sagemaker:ListPipelineExecutionSteps"],
      resources: [`${pipeline}/execution/*`],
      because: "An execution's ARN ends with an id that is drawn when it starts; the pipeline is fixed.",
    });
    allow(role, {
      actions: ["sagemaker:DescribeProcessingJob"],
      resources: [`${arnOf(role, "sagemaker")}:processing-job/pipelines-*`],
      because: "A pipeline names its jobs pipelines-..., with an id; why an audit refused stands in its job alone.",
    });
    allow(role, {
      actions: ["sagemaker:AddTags", "sagemaker:CreateModelPackageGroup"],
      resources: [`${arnOf(role, "sagemaker")}:model-package-group/sdxl-nb*`],
      because: "Whoever starts the pipeline names the group that its LoRAs are registered in, sdxl-nb-...",
    });
    allow(role, {
      actions: ["iam:PassRole"],
      resources: [props.trainingRole.roleArn],
      conditions: { StringEquals: { "iam:PassedToService": "sagemaker.amazonaws.com" } },
    });
    allow(role, {
      actions: ["cloudformation:DescribeStacks"],
      resources: [`${arnOf(role, "cloudformation")}:stack/${Stack.of(this).stackName}/*`],
      because: "A stack's ARN ends with an id that is drawn when it is created; its name is fixed.",
    });
    allow(role, { actions: ["ecr:DescribeImages"], resources: [props.repository.repositoryArn] });
    allow(role, { actions: ["s3:ListBucket"], resources: [props.bucket.bucketArn] });
    return role;
  }

  /** What Fargate needs to start the container; closed, so that the CDK adds no statement of its own. */
  private startRole(repository: IRepository, logs: LogGroup): IRole {
    const role = this.taskRole("StartRole", "sdxl_nb: what Fargate needs to start the launcher");
    allow(role, {
      actions: ["ecr:GetAuthorizationToken"],
      resources: ["*"],
      because: "ecr:GetAuthorizationToken takes no resource.",
    });
    allow(role, {
      actions: ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
      resources: [repository.repositoryArn],
    });
    allow(role, { actions: ["logs:CreateLogStream", "logs:PutLogEvents"], resources: [logs.logGroupArn] });
    return role.withoutPolicyUpdates();
  }

  private taskRole(id: string, description: string): Role {
    const conditions = { StringEquals: { "aws:SourceAccount": Stack.of(this).account } };
    return new Role(this, id, {
      description,
      assumedBy: new ServicePrincipal("ecs-tasks.amazonaws.com", { conditions }),
    });
  }
}
