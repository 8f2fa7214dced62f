// What must hold for the template, by name: stack.test.ts asserts each, mutations.test.ts breaks each.
import assert from "node:assert/strict";
import { Match, type Template } from "aws-cdk-lib/assertions";
import { list, statements } from "./synthesis";

/** Actions that AWS lets take no narrower resource. */
const withoutResource = ["cloudwatch:PutMetricData", "ecr:GetAuthorizationToken"];

export const requirements: Record<string, (template: Template) => void> = {
  "the bucket refuses plain HTTP and old TLS": (template) => {
    const refused = (condition: object) =>
      template.hasResourceProperties("AWS::S3::BucketPolicy", {
        PolicyDocument: {
          Statement: Match.arrayWith([
            Match.objectLike({ Effect: "Deny", Action: "s3:*", Principal: { AWS: "*" }, Condition: condition }),
          ]),
        },
      });
    refused({ Bool: { "aws:SecureTransport": "false" } });
    refused({ NumericLessThan: { "s3:TlsVersion": 1.2 } });
  },

  "the bucket is private, encrypted and versioned": (template) => {
    template.resourceCountIs("AWS::S3::Bucket", 1);
    template.hasResourceProperties("AWS::S3::Bucket", {
      PublicAccessBlockConfiguration: {
        BlockPublicAcls: true,
        BlockPublicPolicy: true,
        IgnorePublicAcls: true,
        RestrictPublicBuckets: true,
      },
      BucketEncryption: {
        ServerSideEncryptionConfiguration: [{ ServerSideEncryptionByDefault: { SSEAlgorithm: "AES256" } }],
      },
      VersioningConfiguration: { Status: "Enabled" },
      OwnershipControls: { Rules: [{ ObjectOwnership: "BucketOwnerEnforced" }] },
    });
  },

  "the bucket is kept under a generated name": (template) => {
    template.hasResource("AWS::S3::Bucket", { DeletionPolicy: "Retain", UpdateReplacePolicy: "Retain" });
    template.hasResourceProperties("AWS::S3::Bucket", { BucketName: Match.absent() });
  },

  "old checkpoints and incomplete uploads go": (template) => {
    const rule = (properties: object) =>
      template.hasResourceProperties("AWS::S3::Bucket", {
        LifecycleConfiguration: { Rules: Match.arrayWith([Match.objectLike({ Status: "Enabled", ...properties })]) },
      });
    rule({ Prefix: "checkpoints/", ExpirationInDays: 90 });
    rule({ Prefix: Match.absent(), AbortIncompleteMultipartUpload: { DaysAfterInitiation: 7 } });
    rule({ Prefix: Match.absent(), NoncurrentVersionExpiration: { NoncurrentDays: 30 } });
  },

  "images are scanned, and only the launcher's tag moves": (template) => {
    template.hasResourceProperties("AWS::ECR::Repository", {
      RepositoryName: "sdxl-nb/training",
      ImageScanningConfiguration: { ScanOnPush: true },
      ImageTagMutability: "IMMUTABLE_WITH_EXCLUSION",
      ImageTagMutabilityExclusionFilters: [
        { ImageTagMutabilityExclusionFilterType: "WILDCARD", ImageTagMutabilityExclusionFilterValue: "latest" },
      ],
      EmptyOnDelete: true,
      LifecyclePolicy: { LifecyclePolicyText: Match.serializedJson({ rules: [Match.anyValue(), Match.anyValue()] }) },
    });
    template.hasResource("AWS::ECR::Repository", { DeletionPolicy: "Delete" });
  },

  "no role may do everything: no wildcard action, no managed policy": (template) => {
    assert.ok(statements(template).length >= 15);
    for (const { policy, Action } of statements(template)) {
      assert.deepEqual(
        list(Action).filter((action) => action.includes("*")),
        [],
        policy,
      );
    }
    for (const role of Object.values(template.findResources("AWS::IAM::Role"))) {
      assert.equal(role.Properties.ManagedPolicyArns, undefined);
      assert.equal(role.Properties.Policies, undefined);
    }
  },

  "only what takes no resource is allowed on all": (template) => {
    for (const { policy, Action, Resource, Condition } of statements(template)) {
      if (list(Resource).includes("*")) {
        assert.ok(
          list(Action).every((action) => withoutResource.includes(action)),
          policy,
        );
        assert.ok(Action !== "cloudwatch:PutMetricData" || Condition, policy);
      }
    }
  },

  "each role serves one service of this account": (template) => {
    const roles = Object.values(template.findResources("AWS::IAM::Role"));
    const trust = roles.flatMap((role) => role.Properties.AssumeRolePolicyDocument.Statement);
    assert.deepEqual(trust.map(({ Principal }) => Principal.Service).sort(), [
      "codebuild.amazonaws.com",
      "ecs-tasks.amazonaws.com",
      "ecs-tasks.amazonaws.com",
      "sagemaker.amazonaws.com",
    ]);
    for (const { Condition } of trust) {
      assert.deepEqual(Condition, { StringEquals: { "aws:SourceAccount": "111122223333" } });
    }
  },

  "only the training role is passed, and only to SageMaker": (template) => {
    const passing = statements(template).filter(({ Action }) => list(Action).includes("iam:PassRole"));
    assert.equal(passing.length, 2);
    for (const { Action, Resource, Condition } of passing) {
      assert.equal(Action, "iam:PassRole");
      assert.deepEqual(Resource, { "Fn::GetAtt": ["TrainingRole4C1607BC", "Arn"] });
      assert.deepEqual(Condition, { StringEquals: { "iam:PassedToService": "sagemaker.amazonaws.com" } });
    }
  },

  "the launcher may create, update and start one pipeline": (template) => {
    const pipeline = "arn:aws:sagemaker:us-east-1:111122223333:pipeline/sdxl-nb";
    const ours = statements(template).filter(({ policy }) => policy.startsWith("LauncherLauncherRole"));
    const allowed = (action: string) => ours.filter(({ Action }) => list(Action).includes(action));
    for (const action of ["CreatePipeline", "UpdatePipeline", "StartPipelineExecution"]) {
      assert.deepEqual(
        allowed(`sagemaker:${action}`).map(({ Resource }) => Resource),
        [pipeline],
      );
    }
    assert.deepEqual(allowed("s3:GetObject"), []); // it sees what changed in a prefix, and reads nothing
    assert.deepEqual(
      allowed("s3:ListBucket").map(({ Resource }) => Resource),
      [{ "Fn::GetAtt": ["StorageBucket5CB7C8EA", "Arn"] }],
    );
    assert.deepEqual(allowed("sagemaker:CreateTrainingJob"), []);
  },

  "the launcher says why an audit refused, and looks at no other job": (template) => {
    const ours = statements(template).filter(({ policy }) => policy.startsWith("LauncherLauncherRole"));
    const looks = ours.filter(({ Action }) => list(Action).some((action) => /Describe.*Job/.test(action)));
    assert.deepEqual(
      looks.map(({ Action, Resource }) => [Action, Resource]),
      [["sagemaker:DescribeProcessingJob", "arn:aws:sagemaker:us-east-1:111122223333:processing-job/pipelines-*"]],
    );
  },

  "a training job reads named secrets and deletes nothing": (template) => {
    const ours = statements(template).filter(({ policy }) => policy.startsWith("TrainingRole"));
    const actions = ours.flatMap(({ Action }) => list(Action));
    assert.ok(actions.includes("s3:PutObject"));
    assert.deepEqual(
      actions.filter((action) => action.includes(":Delete")),
      [],
    );
    assert.deepEqual(
      ours.filter(({ Action }) => Action === "secretsmanager:GetSecretValue").map(({ Resource }) => Resource),
      ["arn:aws:secretsmanager:us-east-1:111122223333:secret:sdxl-nb/*"],
    );
  },

  "the task runs build_pipeline with what it needs to know": (template) => {
    template.hasResourceProperties("AWS::ECS::TaskDefinition", {
      RequiresCompatibilities: ["FARGATE"],
      ContainerDefinitions: [
        Match.objectLike({
          Name: "build-pipeline",
          EntryPoint: ["python", "-m", "sdxl_nb.build_pipeline"],
          Command: Match.absent(),
          Memory: 4096,
          User: "sdxl-nb",
          Environment: [
            { Name: "AWS_REGION", Value: "us-east-1" },
            { Name: "BUCKET_NAME", Value: { Ref: "StorageBucket5CB7C8EA" } },
            { Name: "SDXL_NB_ROLE_ARN", Value: { "Fn::GetAtt": ["TrainingRole4C1607BC", "Arn"] } },
          ],
          LogConfiguration: Match.objectLike({ LogDriver: "awslogs" }),
        }),
      ],
    });
  },

  "nothing reaches the task, and it reaches HTTPS": (template) => {
    template.resourceCountIs("AWS::EC2::SecurityGroup", 1);
    template.resourceCountIs("AWS::EC2::SecurityGroupIngress", 0);
    template.hasResourceProperties("AWS::EC2::SecurityGroup", {
      SecurityGroupIngress: Match.absent(),
      SecurityGroupEgress: [Match.objectLike({ CidrIp: "0.0.0.0/0", IpProtocol: "tcp", FromPort: 443, ToPort: 443 })],
      VpcId: "vpc-0a1b2c3d4e5f60718",
    });
  },

  "images are built from the bucket's zip, and pushed only when built": (template) => {
    const [project] = Object.values(template.findResources("AWS::CodeBuild::Project"));
    const { phases } = JSON.parse(project?.Properties.Source.BuildSpec);
    assert.deepEqual(Object.keys(phases), ["build"]); // later phases run after a failure too
    const commands: string[] = phases.build.commands;
    const at = (text: string) => commands.findIndex((command) => command.startsWith(text));
    assert.ok(at("aws ecr get-login-password") < at("docker build"));
    assert.ok(at("docker build") < at("docker push"));
    assert.match(JSON.stringify(project?.Properties.Source.Location), /image-source\/source\.zip/);
  },

  "logs end": (template) => {
    template.resourceCountIs("AWS::Logs::LogGroup", 2);
    template.allResourcesProperties("AWS::Logs::LogGroup", { RetentionInDays: 30 });
  },

  "Studio's script fits, and a new one gets a new name": (template) => {
    const [config] = Object.values(template.findResources("AWS::SageMaker::StudioLifecycleConfig"));
    const content = JSON.stringify(config?.Properties.StudioLifecycleConfigContent);
    assert.ok(Buffer.from(content).toString("base64").length < 16_384);
    assert.match(content, /"#!\/bin\/bash\\nexport SDXL_NB_SOURCE=s3:\/\//);
    assert.match(config?.Properties.StudioLifecycleConfigName, /^sdxl-nb-kernel-[0-9a-f]{8}$/);
    assert.equal(config?.Properties.StudioLifecycleConfigAppType, "JupyterLab");
  },

  "the outputs have the names that the library reads": (template) => {
    assert.deepEqual(Object.keys(template.findOutputs("*")).sort(), [
      "BucketName",
      "ClusterName",
      "ContainerName",
      "ImageBuildProject",
      "PipelineName",
      "RepositoryUri",
      "SecurityGroupId",
      "SubnetIds",
      "TaskDefinitionArn",
      "TrainingRoleArn",
    ]);
    template.hasOutput("SubnetIds", { Value: "subnet-0a1b2c3d4e5f60a01,subnet-0a1b2c3d4e5f60b02" });
    template.hasOutput("PipelineName", { Value: "sdxl-nb" });
  },

  "one command deploys it: no bootstrap, no asset, no parameter, a template that is sent whole": (template) => {
    const { Parameters, Rules, Resources } = template.toJSON();
    assert.equal(Parameters, undefined);
    assert.equal(Rules, undefined);
    assert.ok(Object.keys(Resources).length > 15);
    assert.deepEqual(Object.keys(template.findResources("AWS::Lambda::Function")), []);
    assert.ok(JSON.stringify(template.toJSON(), null, 1).length < 51_200);
  },
};
