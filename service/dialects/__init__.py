"""Other servers' protocols, one file each, so that their clients switch by changing the address.

Keys, limits, deadlines and statuses are those of the service's own routes; only the shape of the bodies differs.
"""
