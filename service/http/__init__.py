"""From bytes on a socket to a request and back: connection, gate, routes, bodies, clients that leave."""
