// The server on stdio. The task comes with each call's `_meta`, or from MAYFLY_TASK.
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { Mayfly } from '@mayfly/client';
import { issuesServer } from './tools.js';

const mayfly = Mayfly.fromEnv({ onError: (error) => console.error(`in the background: ${error}`) });
const server = issuesServer(mayfly, process.argv[2] ?? 'site');
// The client ends a server on stdio by closing its stdin.
process.stdin.once('end', () => void server.close().then(() => mayfly.close()));
await server.connect(new StdioServerTransport());
