"""prometheus_client's parser of OpenMetrics, which checks more than the format needs: order of buckets, names, units."""

import importlib.metadata
import sys
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from cases import URL, case, run


def scrape(accept: str) -> tuple[str, str]:
    request = urllib.request.Request(f"{URL}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


@case("OpenMetrics")
def openmetrics() -> None:
    content_type, text = scrape("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text"), content_type
    families = {family.name: family for family in open_metrics(text)}
    assert families["trtllm_request_success"].type == "counter" and families["trtllm_e2e_request_latency_seconds"].samples


@case("Prometheus' text")
def text() -> None:
    content_type, body = scrape("text/plain")
    assert content_type.startswith("text/plain"), content_type
    names = {family.name for family in prometheus(body)}
    assert {"trtllm_num_requests_running", "trtllm_kv_cache_utilization"} <= names


if __name__ == "__main__":
    sys.exit(run("prometheus_client", importlib.metadata.version("prometheus_client")))
