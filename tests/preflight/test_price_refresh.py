"""The table of instances with today's prices: only prices and date change, and what the list lacks stays."""

import json

import pytest

from sdxl_nb.preflight.price_refresh import TABLE, refreshed
from sdxl_nb.system.errors import SdxlNbError


class PriceList:
    """AWS's price list with some instances, as its client answers."""

    def __init__(self, **hourly):
        self.hourly = hourly

    def get_products(self, ServiceCode, Filters):
        name = next(item["Value"] for item in Filters if item["Field"] == "instanceName")
        if name not in self.hourly:
            return {"PriceList": []}
        dimension = {"unit": "Hrs", "pricePerUnit": {"USD": str(self.hourly[name])}}
        attributes = {"usagetype": f"USE1-Train:{name}"}
        terms = {"OnDemand": {"a": {"priceDimensions": {"b": dimension}}}}
        return {"PriceList": [json.dumps({"product": {"attributes": attributes}, "terms": terms})]}


def test_prices_and_the_date_change_and_nothing_else():
    before = TABLE.read_text("utf-8")
    old = json.loads(before)
    had = {name: json.dumps(row["price"]) for name, row in old["instances"].items()}
    prices = {"ml.g7.2xlarge": 22.25, "ml.g5.2xlarge": 15.151}
    today = PriceList(**prices, **{"ml.g5.xlarge": had["ml.g5.xlarge"]})
    text, changes = refreshed(before, today, "2027-01-02")
    new = json.loads(text)
    assert new["date"] == "2027-01-02" and len(text.splitlines()) == len(before.splitlines())
    assert sorted(changes) == [f"{name}: {had[name]} -> {price}" for name, price in sorted(prices.items())]
    for name, row in old["instances"].items():
        assert new["instances"][name] == row | ({"price": prices[name]} if name in prices else {}), name
    assert {key: value for key, value in new.items() if key not in ("date", "instances")} == {
        key: value for key, value in old.items() if key not in ("date", "instances")
    }


def test_a_list_that_says_nothing():
    with pytest.raises(SdxlNbError, match=r"^AWS's price list cannot be read: log in with credentials"):
        refreshed(TABLE.read_text("utf-8"), PriceList())
