"""Does the autoscaler's formula hold? Replicas that come and go with a load, behind a load balancer."""
