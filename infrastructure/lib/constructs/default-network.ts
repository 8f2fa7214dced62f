// The default VPC, its public subnets, and a security group that lets nothing in and only HTTPS out.
import { Annotations, ContextProvider, Stack } from "aws-cdk-lib";
import { type ISecurityGroup, type IVpc, Peer, Port, SecurityGroup, Vpc } from "aws-cdk-lib/aws-ec2";
import { Construct } from "constructs";

export class DefaultNetwork extends Construct {
  readonly vpc: IVpc;
  readonly subnetIds: string[];
  readonly securityGroup: ISecurityGroup;

  constructor(scope: Construct, id: string) {
    super(scope, id);
    const vpcId: string | undefined = this.node.tryGetContext("vpcId");
    this.vpc = this.mayExist(vpcId) ? this.find(vpcId) : this.missing(vpcId);
    this.subnetIds = this.vpc.publicSubnets.map((subnet) => subnet.subnetId);
    if (this.subnetIds.length === 0 && this.mayExist(vpcId)) {
      const remedy = "name another with `npx cdk deploy -c vpcId=vpc-...`.";
      Annotations.of(this).addError(`VPC ${this.vpc.vpcId} has no public subnet for the launcher: ${remedy}`);
    }
    this.securityGroup = this.httpsOnly();
  }

  private find(vpcId?: string): IVpc {
    return Vpc.fromLookup(this, "Vpc", vpcId ? { vpcId } : { isDefault: true });
  }

  /** False once the CLI has looked for the VPC and found none; it keeps what it was told in the context. */
  private mayExist(vpcId?: string): boolean {
    const filter = vpcId ? { "vpc-id": vpcId } : { isDefault: "true" };
    const props = { filter, returnAsymmetricSubnets: true };
    const { key } = ContextProvider.getKey(this, { provider: "vpc-provider", props });
    return !/not find any VPC/.test(this.node.tryGetContext(key)?.$providerError ?? "");
  }

  /** Says what to do, instead of the CDK's dump of its filter, and lets the synthesis end. */
  private missing(vpcId?: string): IVpc {
    const { region, account } = Stack.of(this);
    const remedy = "or name another with `npx cdk deploy -c vpcId=vpc-...`.";
    Annotations.of(this).addError(
      vpcId
        ? `There is no VPC ${vpcId} in ${region} of account ${account}: correct the id, ${remedy}`
        : `There is no default VPC in ${region} of account ${account}: make one with \`aws ec2 create-default-vpc\`, ${remedy}`,
    );
    return Vpc.fromVpcAttributes(this, "Vpc", { vpcId: "vpc-00000000", availabilityZones: ["none"] });
  }

  /** AWS's APIs, the registry and the hub are all HTTPS; nobody calls the task. */
  private httpsOnly(): SecurityGroup {
    const group = new SecurityGroup(this, "SecurityGroup", {
      vpc: this.vpc,
      description: "sdxl_nb launcher: nothing in, HTTPS out",
      allowAllOutbound: false,
    });
    group.addEgressRule(Peer.anyIpv4(), Port.HTTPS, "AWS APIs, ECR, the Hugging Face hub");
    return group;
  }
}
