// The repository of training images: scanned, tags that never move, the ten newest kept.
import { Duration, RemovalPolicy } from "aws-cdk-lib";
import {
  ImageTagMutabilityExclusionFilter,
  Repository,
  RepositoryEncryption,
  TagMutability,
  TagStatus,
} from "aws-cdk-lib/aws-ecr";
import { Construct } from "constructs";

/** The one tag that moves: a task definition must name a tag, and the launcher shall run the newest image. */
export const launcherTag = "latest";

export class ImageRepository extends Construct {
  readonly repository: Repository;

  constructor(scope: Construct, id: string) {
    super(scope, id);
    this.repository = new Repository(this, "Repository", {
      repositoryName: "sdxl-nb/training",
      encryption: RepositoryEncryption.AES_256,
      imageScanOnPush: true,
      imageTagMutability: TagMutability.IMMUTABLE_WITH_EXCLUSION,
      imageTagMutabilityExclusionFilters: [ImageTagMutabilityExclusionFilter.wildcard(launcherTag)],
      removalPolicy: RemovalPolicy.DESTROY, // images are built again in minutes; a kept name would block the next deploy
      emptyOnDelete: true,
      lifecycleRules: [
        {
          description: "untagged images go",
          tagStatus: TagStatus.UNTAGGED,
          maxImageAge: Duration.days(1),
          rulePriority: 1,
        },
        { description: "the ten newest stay", maxImageCount: 10, rulePriority: 2 },
      ],
    });
  }
}
