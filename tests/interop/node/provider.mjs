// An OIDC provider that nobody of us wrote, oidc-provider from npm, on loopback, and a browser for whoever signs in there.
//
//   node provider.mjs listen FILE    listens until it is ended; its issuer stands in FILE
//   node provider.mjs sign-in URL LOGIN
//
// Who signs in as `ada+mfa` did it with a second factor: the provider says so in amr and acr.
import { writeFileSync } from 'node:fs';
import http from 'node:http';
import { fileURLToPath } from 'node:url';
import Provider from 'oidc-provider';

export const CLIENT = 'mayfly-cli';

// A provider on a free port of loopback: { issuer, listener }.
export async function listen() {
  let provider;
  const started = http.createServer((request, answer) => provider.callback()(request, answer));
  // Longer than any test: a connection that the provider closes while a slow machine's client sends on it is an error of neither.
  started.keepAliveTimeout = 600_000;
  await new Promise((resolve) => started.listen(0, '127.0.0.1', resolve));
  const issuer = `http://127.0.0.1:${started.address().port}`;
  provider = new Provider(issuer, {
    clients: [
      {
        client_id: CLIENT,
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'],
        response_types: ['code'],
        // A native client's port is not compared (RFC 8252, section 7.3).
        redirect_uris: ['http://127.0.0.1/callback'],
        id_token_signed_response_alg: 'RS256',
        require_auth_time: true,
      },
    ],
    features: { deviceFlow: { enabled: true }, devInteractions: { enabled: false } },
    pkce: { required: () => true },
    acrValues: ['urn:example:low', 'urn:example:high'],
    claims: { openid: ['sub', 'acr', 'amr', 'auth_time'] },
    conformIdTokenClaims: false,
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    cookies: { keys: ['a key for tests'] },
  });
  provider.on('server_error', (_, error) => console.error('provider:', error));
  // One page for each interaction: it asks for a name and lets everything through that was asked for.
  provider.use(async (ctx, next) => {
    if (!ctx.path.startsWith('/interaction/')) return next();
    const details = await provider.interactionDetails(ctx.req, ctx.res);
    if (ctx.method === 'GET') {
      ctx.type = 'html';
      ctx.body = `<form method="post" action="${ctx.path}"><input name="login"><input name="go"></form>`;
      return;
    }
    let body = '';
    for await (const part of ctx.req) body += part;
    const [sub, factor] = new URLSearchParams(body).get('login').split('+');
    if (details.prompt.name === 'login') {
      const strong = factor === 'mfa';
      const login = { accountId: sub, acr: strong ? 'urn:example:high' : 'urn:example:low', amr: strong ? ['pwd', 'otp', 'mfa'] : ['pwd'] };
      await provider.interactionFinished(ctx.req, ctx.res, { login }, { mergeWithLastSubmission: false });
    } else {
      const grant = details.grantId
        ? await provider.Grant.find(details.grantId)
        : new provider.Grant({ accountId: details.session.accountId, clientId: details.params.client_id });
      grant.addOIDCScope('openid');
      const consent = { grantId: await grant.save() };
      await provider.interactionFinished(ctx.req, ctx.res, { consent }, { mergeWithLastSubmission: true });
    }
    ctx.respond = false;
  });
  return { issuer, listener: started };
}

// Follows redirects, keeps cookies and posts forms.
export class Browser {
  cookies = new Map();

  async go(url, form) {
    for (let hops = 0; hops < 20; hops++) {
      const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
      const headers = form ? { cookie, 'content-type': 'application/x-www-form-urlencoded' } : { cookie };
      const answer = await fetch(url, { method: form ? 'POST' : 'GET', body: form && new URLSearchParams(form), headers, redirect: 'manual' });
      for (const line of answer.headers.getSetCookie()) {
        const [pair] = line.split(';');
        const at = pair.indexOf('=');
        this.cookies.set(pair.slice(0, at), pair.slice(at + 1));
      }
      const to = answer.headers.get('location');
      if (!to || answer.status < 300 || answer.status >= 400) return { url, status: answer.status, text: await answer.text() };
      await answer.arrayBuffer();
      [url, form] = [new URL(to, url).href, undefined];
    }
    throw new Error(`too many redirects: ${url}`);
  }

  // Fills in whatever form there is until there is none.
  async signIn(url, login) {
    let page = await this.go(url);
    for (let forms = 0; forms < 10; forms++) {
      const form = /<form[^>]*action="([^"]*)"[^>]*>([\s\S]*?)<\/form>/.exec(page.text);
      if (!form) return page;
      const fields = { login, go: 'yes' };
      for (const [, input] of form[2].matchAll(/<input([^>]*)>/g)) {
        const [name, value] = ['name', 'value'].map((what) => new RegExp(`${what}="([^"]*)"`).exec(input)?.[1]);
        if (name && value !== undefined) fields[name] = value;
      }
      page = await this.go(new URL(form[1].replaceAll('&amp;', '&'), page.url).href, fields);
    }
    throw new Error(`forms without end: ${page.url}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [what, first, second] = process.argv.slice(2);
  if (what === 'listen') {
    writeFileSync(first, (await listen()).issuer);
  } else {
    const page = await new Browser().signIn(first, second);
    console.log(page.status, page.text);
  }
}
