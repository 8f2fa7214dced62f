"""What SageMaker's GPU instances are, and what an hour of them costs.

In: names such as ml.g5.2xlarge, and a region. Out: Instance records, and dollars an hour: from the AWS price list
where credentials reach it, else from the dated table in instances.json; `Price.source` says which.
"""

import functools
import json
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from importlib import resources
from typing import Any

from ..config.messages import nearest
from ..system.errors import ConfigError

ANSWER_SECONDS = 4  # a price list that has not answered by then is not waited for
HOME = "us-east-1"  # the price list is served from there, for all regions


@dataclass(frozen=True)
class Instance:
    """GPUs of an instance: memory in GB (10^9 bytes) and dense TFLOP/s each; None for a dtype that it lacks."""

    name: str
    gpu: str
    count: int
    memory_gb: float
    bf16_tflops: float | None
    fp16_tflops: float | None
    fp32_tflops: float
    spot_saving: float  # a usual share that spot is cheaper by; no promise

    def tflops(self, dtype: str) -> float | None:
        """The dense rate of one GPU for bf16, fp16 or no (fp32)."""
        return {"bf16": self.bf16_tflops, "fp16": self.fp16_tflops}.get(dtype, self.fp32_tflops)


@dataclass(frozen=True)
class Price:
    """Dollars an hour on demand, and where that comes from."""

    hourly: float
    source: str


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(resources.files(__package__).joinpath("instances.json").read_text("utf-8"))


def names() -> list[str]:
    """Every instance in the table."""
    return list(_table()["instances"])


def instance(name: str) -> Instance:
    """The Instance of that name. Raises ConfigError with the nearest name."""
    table = _table()
    if name not in table["instances"]:
        close = nearest(name, names())
        raise ConfigError(
            f"instance {name} is not known here: "
            + (f"did you mean {close}?" if close else "give one of prices.names()")
        )
    row = table["instances"][name]
    return Instance(name=name, gpu=row["gpu"], count=row["count"], **table["gpus"][row["gpu"]])


def price(instance_type: str, region: str = HOME) -> float | None:
    """Dollars for an hour of training on one instance, on demand; None where it is not known for that region."""
    known = find(instance_type, region)
    return known.hourly if known else None


def find(instance_type: str, region: str = HOME, client: Any = None) -> Price | None:
    """The Price in a region: AWS's own where it can be asked, else the dated table's, which is of us-east-1 alone."""
    return ask(instance_type, region, client) or stored(instance_type, region)


def stored(instance_type: str, region: str = HOME) -> Price | None:
    """The dated table's Price; None where it has none, or of another region."""
    table = _table()
    hourly = table["instances"].get(instance_type, {}).get("price")
    return Price(hourly, f"list price of {table['date']}") if hourly and region == table["region"] else None


def unknown(instance_type: str, region: str) -> str:
    """What to do where no Price is found: the end of a sentence that begins with what costs it."""
    refresh = "python -m sdxl_nb.preflight.price_refresh" if region == HOME else "this again"
    return (
        f"no price is known here for {instance_type} in {region}: look at aws.amazon.com/sagemaker/pricing, or run "
        f"{refresh} with AWS credentials that may pricing:GetProducts"
    )


def cents(dollars: float) -> float:
    """A price in whole cents, never less than it is."""
    exact = Decimal(repr(dollars)).quantize(Decimal("1e-9"), ROUND_HALF_EVEN)  # what a float adds is no money
    return float(exact.quantize(Decimal("0.01"), ROUND_CEILING))


def an_hour(price: float) -> str:
    """A price an hour, in as many digits as it has: $1.515, $4.20."""
    digits = f"{price:.4f}".rstrip("0")
    return f"${max(digits, f'{price:.2f}', key=len)}"


def ask(instance_type: str, region: str, client: Any = None) -> Price | None:
    """AWS's price list today; None without boto3, credentials, a network, or such an instance there."""
    if client is None and not _may_ask():
        return None
    try:
        client = client or _client()
        filters = [("regionCode", region), ("instanceName", instance_type)]
        listed = client.get_products(
            ServiceCode="AmazonSageMaker",
            Filters=[{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters],
        )["PriceList"]
        hourly = _training_price([json.loads(product) for product in listed], instance_type)
    except Exception:  # whatever botocore or a changed format raises: the table is there
        return None
    return Price(hourly, "AWS price list today") if hourly else None


@functools.cache
def _may_ask() -> bool:
    """Whether there are credentials; asked once, because looking for them can take seconds."""
    try:
        import boto3

        return boto3.Session().get_credentials() is not None and _answers()
    except Exception:  # boto3 is not there, or its configuration is broken
        return False


def _answers() -> bool:
    """Whether the price list answers at all: a host without a way there would wait for every single price."""
    try:
        _client().describe_services(ServiceCode="AmazonSageMaker", MaxResults=1)
    except Exception:
        return False
    return True


def _client() -> Any:
    import boto3
    from botocore.config import Config

    quick = Config(connect_timeout=ANSWER_SECONDS, read_timeout=ANSWER_SECONDS, retries={"total_max_attempts": 1})
    return boto3.client("pricing", region_name=HOME, config=quick)


def _training_price(products: list[dict[str, Any]], instance_type: str) -> float | None:
    """The first hourly price among those whose usage is training (USE1-Train:ml.g5.2xlarge)."""
    for product in products:
        if not product["product"]["attributes"].get("usagetype", "").endswith(f"Train:{instance_type}"):
            continue
        for term in product["terms"]["OnDemand"].values():
            for dimension in term["priceDimensions"].values():
                if dimension["unit"] == "Hrs" and float(dimension["pricePerUnit"]["USD"]) > 0:
                    return float(dimension["pricePerUnit"]["USD"])
    return None
