"""What listens in tests on a socket of its own: each connection is served in a thread, until it is closed."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from typing import Final

HOST: Final = "127.0.0.1"


class Listener(ABC):
    """Listens on `port` from `listen` to `close`."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://{HOST}:{self.port}"
        self._thread = threading.Thread(target=self._run, daemon=True)

    @abstractmethod
    def serve(self, client: socket.socket) -> None:
        """One connection, which is closed afterwards."""

    def listen(self) -> None:
        self._thread.start()

    def close(self) -> None:
        # Wakes the thread that waits for a connection.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._served, args=(client,), daemon=True).start()

    def _served(self, client: socket.socket) -> None:
        with client:
            self.serve(client)
