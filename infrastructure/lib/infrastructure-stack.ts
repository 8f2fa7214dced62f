// The stack: who gets what. In: an account, a region, a default VPC. Out: the names that the Python library reads.
import { BootstraplessSynthesizer, CfnOutput, Stack, type StackProps } from "aws-cdk-lib";
import type { Construct } from "constructs";
import { DefaultNetwork } from "./constructs/default-network";
import { ImageBuilder } from "./constructs/image-builder";
import { ImageRepository } from "./constructs/image-repository";
import { ModelBucket } from "./constructs/model-bucket";
import { PipelineLauncher } from "./constructs/pipeline-launcher";
import { StudioKernel } from "./constructs/studio-kernel";
import { TrainingRole } from "./constructs/training-role";

/** The SageMaker pipeline's name; lower case, because its ARN is. */
const pipelineName = "sdxl-nb";

export class InfrastructureStack extends Stack {
  readonly storage: ModelBucket;
  readonly images: ImageRepository;
  readonly training: TrainingRole;
  readonly network: DefaultNetwork;
  readonly launcher: PipelineLauncher;
  readonly builder: ImageBuilder;
  readonly kernel: StudioKernel;

  constructor(scope: Construct, id: string, props: StackProps) {
    super(scope, id, {
      description: "sdxl_nb: storage, images, roles and launcher for fine-tuning SDXL on Amazon SageMaker",
      synthesizer: new BootstraplessSynthesizer(), // `npx cdk deploy` works in an account that was never bootstrapped
      ...props,
    });
    this.storage = new ModelBucket(this, "Storage");
    this.images = new ImageRepository(this, "Images");
    this.training = new TrainingRole(this, "Training", {
      bucket: this.storage.bucket,
      repository: this.images.repository,
    });
    this.network = new DefaultNetwork(this, "Network");
    this.launcher = new PipelineLauncher(this, "Launcher", {
      bucket: this.storage.bucket,
      repository: this.images.repository,
      trainingRole: this.training.role,
      vpc: this.network.vpc,
      pipelineName,
    });
    this.builder = new ImageBuilder(this, "Builder", {
      bucket: this.storage.bucket,
      repository: this.images.repository,
    });
    this.kernel = new StudioKernel(this, "Studio", { bucket: this.storage.bucket });
    this.addOutputs();
  }

  /** The names are a contract with sdxl_nb/aws/stack.py. */
  private addOutputs(): void {
    const outputs: Record<string, string> = {
      BucketName: this.storage.bucket.bucketName,
      RepositoryUri: this.images.repository.repositoryUri,
      TrainingRoleArn: this.training.role.roleArn,
      ClusterName: this.launcher.cluster.clusterName,
      TaskDefinitionArn: this.launcher.task.taskDefinitionArn,
      ContainerName: this.launcher.containerName,
      SubnetIds: this.network.subnetIds.join(","),
      SecurityGroupId: this.network.securityGroup.securityGroupId,
      PipelineName: pipelineName,
      ImageBuildProject: this.builder.projectName,
    };
    for (const [name, value] of Object.entries(outputs)) {
      new CfnOutput(this, name, { value });
    }
  }
}
