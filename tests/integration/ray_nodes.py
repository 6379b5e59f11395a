"""A Ray cluster of two nodes on this machine, each a real one: `python -m tests.integration.ray_nodes`.

Prints the address of its head, and ends when its input does.
"""

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    """Runs the cluster."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
