"""`python -m jobs.embedded.fake_redis PORT`: fakeredis' TCP server, for machines without a real Redis. Not durable."""

import sys

from fakeredis import TcpFakeServer


def main() -> None:
    """Serve until the process is ended."""
    server = TcpFakeServer(("127.0.0.1", int(sys.argv[1])))
    # Without this every reply of several writes waits for the client's delayed acknowledgement.
    server.RequestHandlerClass.disable_nagle_algorithm = True
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
