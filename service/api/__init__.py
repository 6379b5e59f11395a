"""What each route answers: our own, the administrator's, and those of two other servers' protocols, one file each.

Keys, limits, deadlines and statuses are the same for all; only the shape of the bodies differs, so that clients of
those servers switch by changing the address.
"""
