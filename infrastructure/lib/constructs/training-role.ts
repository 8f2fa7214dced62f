// The role of training jobs and of the pipeline that starts them: this bucket, this repository, named secrets, its logs.
import { Stack } from "aws-cdk-lib";
import type { IRepository } from "aws-cdk-lib/aws-ecr";
import { Role, ServicePrincipal } from "aws-cdk-lib/aws-iam";
import type { IBucket } from "aws-cdk-lib/aws-s3";
import { Construct } from "constructs";
import { allow, arnOf } from "../permission";

/** SageMaker's log group for training jobs, and its namespace for their metrics. */
const jobLogs = "/aws/sagemaker/TrainingJobs";
const auditLogs = "/aws/sagemaker/ProcessingJobs";

export interface TrainingRoleProps {
  readonly bucket: IBucket;
  readonly repository: IRepository;
}

export class TrainingRole extends Construct {
  readonly role: Role;

  constructor(scope: Construct, id: string, props: TrainingRoleProps) {
    super(scope, id);
    this.role = new Role(this, "Role", {
      description: "sdxl_nb: what a SageMaker training job and its pipeline may do",
      assumedBy: new ServicePrincipal("sagemaker.amazonaws.com", {
        conditions: { StringEquals: { "aws:SourceAccount": Stack.of(this).account } },
      }),
    });
    this.allowStorage(props.bucket);
    this.allowImages(props.repository);
    this.allowWatching();
    this.allowSecrets();
    this.allowJobs();
    this.allowMlflow();
  }

  /** Reads data and models, writes runs; deletes nothing. */
  private allowStorage(bucket: IBucket): void {
    allow(this.role, {
      actions: ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
      resources: [bucket.bucketArn],
    });
    allow(this.role, {
      actions: ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
      resources: [bucket.arnForObjects("*")],
      because: "Data, models and runs may lie under any prefix of this one bucket, which holds nothing else.",
    });
  }

  private allowImages(repository: IRepository): void {
    allow(this.role, {
      actions: ["ecr:GetAuthorizationToken"],
      resources: ["*"],
      because:
        "ecr:GetAuthorizationToken and cloudwatch:PutMetricData take no resource; metrics are held to a namespace.",
    });
    allow(this.role, {
      actions: ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
      resources: [repository.repositoryArn],
    });
  }

  private allowWatching(): void {
    const groups = [jobLogs, auditLogs].map((name) => `${arnOf(this.role, "logs")}:log-group:${name}`);
    allow(this.role, {
      actions: ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
      resources: groups.flatMap((group) => [group, `${group}:*`]),
      because: "SageMaker names a log stream after each job, in the one log group that all jobs of a kind share.",
    });
    allow(this.role, {
      actions: ["cloudwatch:PutMetricData"],
      resources: ["*"],
      conditions: { StringEquals: { "cloudwatch:namespace": jobLogs } },
    });
  }

  /** Tokens for the hub and for W&B, by name. */
  private allowSecrets(): void {
    allow(this.role, {
      actions: ["secretsmanager:GetSecretValue"],
      resources: [`${arnOf(this.role, "secretsmanager")}:secret:sdxl-nb/*`],
      because: "Users name their secrets under sdxl-nb/, and Secrets Manager ends each ARN with random letters.",
    });
  }

  /** What a job with report_to mlflow calls: curves, and where the pictures lie; an App has one action for all. */
  private allowMlflow(): void {
    const sagemaker = arnOf(this.role, "sagemaker");
    allow(this.role, {
      actions: ["sagemaker:CallMlflowAppApi"],
      resources: [`${sagemaker}:mlflow-app/*`],
      because: "Users make their MLflow App themselves and name it to a job; AWS ends its ARN with random letters.",
    });
    allow(this.role, {
      actions: [
        "sagemaker-mlflow:CreateExperiment",
        "sagemaker-mlflow:CreateRun",
        "sagemaker-mlflow:GetExperiment",
        "sagemaker-mlflow:GetMetricHistory",
        "sagemaker-mlflow:GetRun",
        "sagemaker-mlflow:ListArtifacts",
        "sagemaker-mlflow:LogBatch",
        "sagemaker-mlflow:SearchExperiments",
        "sagemaker-mlflow:SetTag",
        "sagemaker-mlflow:UpdateRun",
      ],
      resources: [`${sagemaker}:mlflow-tracking-server/*`],
      because: "Users make their tracking server themselves, call it as they like, and name it to a job.",
    });
  }

  /** A pipeline runs under this role and starts its jobs under this role. */
  private allowJobs(): void {
    const jobs = `${arnOf(this.role, "sagemaker")}:training-job`;
    allow(this.role, {
      actions: [
        "sagemaker:AddTags",
        "sagemaker:CreateTrainingJob",
        "sagemaker:DescribeTrainingJob",
        "sagemaker:ListTags",
        "sagemaker:StopTrainingJob",
      ],
      resources: [`${jobs}/pipelines-*`, `${jobs}/sdxl-nb-*`],
      because:
        "A job's name is made when it starts: pipelines-... by SageMaker Pipelines, sdxl-nb-... by this library.",
    });
    const sagemaker = arnOf(this.role, "sagemaker");
    allow(this.role, {
      actions: [
        "sagemaker:AddTags",
        "sagemaker:CreateProcessingJob",
        "sagemaker:DescribeProcessingJob",
        "sagemaker:StopProcessingJob",
      ],
      resources: [`${sagemaker}:processing-job/pipelines-*`],
      because: "SageMaker Pipelines names the audit's job when it starts.",
    });
    allow(this.role, {
      actions: [
        "sagemaker:AddTags",
        "sagemaker:CreateHyperParameterTuningJob",
        "sagemaker:DescribeHyperParameterTuningJob",
        "sagemaker:ListTrainingJobsForHyperParameterTuningJob",
        "sagemaker:StopHyperParameterTuningJob",
      ],
      resources: [`${sagemaker}:hyper-parameter-tuning-job/*`],
      because: "SageMaker Pipelines names a search when it starts, in 32 letters, and does not say how they begin.",
    });
    allow(this.role, {
      actions: ["sagemaker:AddTags", "sagemaker:CreateModelPackage"],
      resources: [`${sagemaker}:model-package-group/sdxl-nb*`, `${sagemaker}:model-package/sdxl-nb*`],
      because: "A pipeline registers LoRAs in groups that its users name, sdxl-nb-..., and each version gets a number.",
    });
    allow(this.role, {
      actions: ["iam:PassRole"],
      resources: [this.role.roleArn],
      conditions: { StringEquals: { "iam:PassedToService": "sagemaker.amazonaws.com" } },
    });
  }
}
