"""Takes webhooks on a free port of loopback and appends each body to a file as a line: what the scripts that type commands listen with."""
import http.server
import sys

port_file, told_file = sys.argv[1:3]


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length']))
        with open(told_file, 'ab') as told:
            told.write(body + b'\n')
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(('127.0.0.1', 0), Receiver)
with open(port_file, 'w') as port:
    port.write(str(server.server_port))
server.serve_forever()
