// The bucket for data, models and runs: private, encrypted, versioned, TLS only, kept when the stack goes.
import { Duration, RemovalPolicy, Validations } from "aws-cdk-lib";
import { BlockPublicAccess, Bucket, BucketEncryption, ObjectOwnership } from "aws-cdk-lib/aws-s3";
import { Construct } from "constructs";

/** Where the zip lies from which images and Studio kernels are built. */
export const sourceKey = "image-source/source.zip";

export class ModelBucket extends Construct {
  readonly bucket: Bucket;

  constructor(scope: Construct, id: string) {
    super(scope, id);
    this.bucket = new Bucket(this, "Bucket", {
      encryption: BucketEncryption.S3_MANAGED,
      blockPublicAccess: BlockPublicAccess.BLOCK_ALL,
      objectOwnership: ObjectOwnership.BUCKET_OWNER_ENFORCED,
      enforceSSL: true,
      minimumTLSVersion: 1.2,
      versioned: true,
      removalPolicy: RemovalPolicy.RETAIN, // a year of LoRAs outlives `cdk destroy`; the name is generated, so it is free
      lifecycleRules: [
        { id: "incomplete-uploads", abortIncompleteMultipartUploadAfter: Duration.days(7) },
        {
          id: "old-versions",
          noncurrentVersionExpiration: Duration.days(30),
          expiredObjectDeleteMarker: true,
        },
        { id: "old-checkpoints", prefix: "checkpoints/", expiration: Duration.days(90) },
        { id: "old-sources", prefix: "image-source/", noncurrentVersionExpiration: Duration.days(7) },
      ],
    });
    Validations.of(this.bucket).acknowledge({
      id: "AwsSolutions-S1",
      reason: "Access logs would need a second retained bucket; who read what is CloudTrail's to record, if wanted.",
    });
  }
}
