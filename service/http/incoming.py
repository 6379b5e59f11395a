"""What a client has sent and nobody has looked at yet: heads and content are taken from its front."""

from service.http.http1 import Body, Bounds, Head, find_end, guess_request, parse_head, skip_empty_lines


class Incoming:
    """Bytes of one connection; false where there are none."""

    __slots__ = ("_data", "_searched")

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""  # a bytearray where a part was added to another
        self._searched = 0  # how far of it holds no end of a head

    def __len__(self) -> int:
        return len(self._data)

    def add(self, data: bytes) -> None:
        """More has come."""
        if not self._data:
            self._data = data
            return
        if isinstance(self._data, bytes):
            self._data = bytearray(self._data)
        self._data += data

    def skip_empty_lines(self) -> bool:
        """Whether a request begins here, after empty lines."""
        self._data = skip_empty_lines(self._data)
        return self._data not in (b"", b"\r")

    def take_head(self, bounds: Bounds) -> Head | None:
        """The head at the front; None where its end has not come.

        Raises:
            ServiceError: it is refused; see `find_end` and `parse_head`.
        """
        end = find_end(self._data, self._searched, bounds)
        if end < 0:
            self._searched = len(self._data)
            return None
        head = parse_head(bytes(self._data[:end]), bounds)
        self._data = bytes(self._data[end + 4 :])
        self._searched = 0
        return head

    def take_content(self, body: Body) -> bytes:
        """The content of a body at the front.

        Raises:
            ServiceError: see Body.read.
        """
        content, used = body.read(self._data)
        self._data = bytes(self._data[used:])
        return content

    def guess_request(self) -> tuple[str, bytes]:
        """Method and path of the request that begins here; empty where it does not even look like one."""
        return guess_request(self._data)

    def clear(self) -> None:
        """Forgets what has come."""
        self._data = b""
        self._searched = 0
