// An MCP server's tools on GitHub, with Octokit. Each call has a token of the agent's task, with the permissions of one scope.
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { Octokit } from '@octokit/core';
import { z } from 'zod';
import type { Credential, Mayfly } from '@mayfly/client';

const text = (words: string, isError = false) => ({ content: [{ type: 'text' as const, text: words }], isError });

/** Octokit with a credential: the token goes into the header of each request, and to the base URL of the credential only. */
function octokitOf(cred: Credential): Octokit {
  const octokit = new Octokit({ baseUrl: cred.baseUrl, userAgent: 'github-issues' });
  octokit.hook.before('request', (options) => {
    Object.assign(options.headers, cred.headers);
  });
  octokit.hook.after('request', (response) => cred.used({ outcome: response.status }));
  return octokit;
}

/** The answer to the agent where GitHub refuses: its status and its words. */
function refused(cred: Credential, error: unknown) {
  const status = (error as { status?: unknown }).status;
  if (typeof status !== 'number') throw error;
  cred.used({ outcome: status });
  return text(`GitHub answered ${status}: ${(error as Error).message}`, true);
}

/** `upstream`: the name under which GitHub is registered at mayfly. */
export function issuesServer(mayfly: Mayfly, upstream: string): McpServer {
  const server = new McpServer({ name: 'github-issues', version: '1.0.0' });
  const where = { owner: z.string(), repo: z.string() };

  const list = { description: 'Lists the issues of a repository', inputSchema: where };
  server.registerTool('list_issues', list, async ({ owner, repo }, extra) => {
    await using cred = await mayfly.credential(upstream, {
      scope: ['site:read'], purpose: 'list issues for the agent', task: mayfly.taskOf(extra),
    });
    try {
      const { data } = await octokitOf(cred).request('GET /repos/{owner}/{repo}/issues', { owner, repo });
      return text(data.map((issue) => `#${issue.number} ${issue.title}`).join('\n'));
    } catch (error) {
      return refused(cred, error);
    }
  });

  const open = { description: 'Opens an issue', inputSchema: { ...where, title: z.string() } };
  server.registerTool('open_issue', open, async ({ owner, repo, title }, extra) => {
    await using cred = await mayfly.credential(upstream, {
      scope: ['site:issues'], purpose: 'open an issue for the agent', task: mayfly.taskOf(extra),
    });
    try {
      const { data } = await octokitOf(cred).request('POST /repos/{owner}/{repo}/issues', { owner, repo, title });
      return text(`#${data.number} ${data.title}`);
    } catch (error) {
      return refused(cred, error);
    }
  });
  return server;
}
