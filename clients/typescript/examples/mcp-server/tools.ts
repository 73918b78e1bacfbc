// An MCP server's tools. Each call to the upstream has a credential of its own making: for this task, this tool, these arguments.
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { z } from 'zod';
import type { Mayfly } from '@mayfly/client';

const text = (words: string, isError = false) => ({ content: [{ type: 'text' as const, text: words }], isError });

export function echoServer(mayfly: Mayfly): McpServer {
  const server = new McpServer({ name: 'echo', version: '1.0.0' });

  const say = { description: 'Says something', inputSchema: { words: z.string() } };
  server.registerTool('say', say, async ({ words }, extra) => {
    // For these very arguments: whoever got hold of it could say nothing else with it.
    await using cred = await mayfly.credential('echo', {
      scope: ['echo:write'], tool: 'say', arguments: { words }, purpose: 'say what the agent wants said', task: mayfly.taskOf(extra),
    });
    const response = await fetch(`${cred.baseUrl}/say`, {
      method: 'POST', headers: { 'content-type': 'application/json', ...cred.headers }, body: JSON.stringify({ words }),
    });
    cred.used({ outcome: response.status });
    return text(`${response.status} ${await response.text()}`, !response.ok);
  });

  const listen = { description: 'Listens to what was said', inputSchema: {} };
  server.registerTool('listen', listen, async (_nothing, extra) => {
    // For the tool: calls of one task share it until shortly before it ends.
    await using cred = await mayfly.credential('echo', {
      scope: ['echo:read'], tool: 'listen', purpose: 'listen for the agent', ttl: 3, task: mayfly.taskOf(extra),
    });
    const response = await fetch(`${cred.baseUrl}/said`, { headers: cred.headers });
    cred.used({ outcome: response.status });
    return text(`${response.status} ${await response.text()}`, !response.ok);
  });
  return server;
}
