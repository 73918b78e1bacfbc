// The server over Streamable HTTP. Who calls shows a credential for it, and the task is that credential's.
import type { AddressInfo } from 'node:net';
import express from 'express';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { Mayfly, protect, protectedResourceMetadata } from '@mayfly/client';
import { echoServer } from './tools.js';

// A call that belongs to no task is refused: what this server may do is more than what whoever calls it may.
const mayfly = Mayfly.fromEnv({ requireTask: true, onError: (error) => console.error(`in the background: ${error}`) });
const verifier = await mayfly.verifier({
  issuer: process.env['ECHO_ISSUER'] ?? 'https://dev.mayfly.internal/dev',
  audience: process.env['ECHO_AUDIENCE'] ?? 'https://echo.dev.mayfly.internal',
  upstreams: ['echo'],
}).ready();

const app = express();
app.use(protectedResourceMetadata(verifier, { scopes: ['echo:read', 'echo:write'] }));
app.post('/mcp', protect(verifier, { scope: 'echo:read' }), express.json(), async (request, response) => {
  // One server and transport for each request: there is no session to keep.
  const server = echoServer(mayfly);
  const transport = new StreamableHTTPServerTransport({ enableJsonResponse: true });
  response.once('close', () => void server.close());
  await server.connect(transport as Parameters<typeof server.connect>[0]);
  await transport.handleRequest(request, response, request.body);
});

const listener = app.listen(Number(process.env['PORT'] ?? 0), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${(listener.address() as AddressInfo).port}/mcp`);
});
process.once('SIGTERM', () => {
  listener.close();
  listener.closeAllConnections();
  void mayfly.close();
});
