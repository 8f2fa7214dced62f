// Says in one sentence that Node is too old, before npm or the CDK fail with many; old syntax, so that any Node reads it.
var wanted = Number(require("../package.json").engines.node.replace(/\D/g, ""));
var found = process.versions.node;

if (Number(found.split(".")[0]) < wanted) {
  console.error(
    // biome-ignore lint/style/useTemplate: a Node that is old enough knows no templates
    "The infrastructure needs Node " + wanted + " or newer and this is " + found + ": install it from nodejs.org.",
  );
  process.exit(1);
}
