// The certified npm `oidc-provider`, dressed as Entra ID v2, as Okta, and as an issuer that gatepost
// does not know. Prints one line of JSON when it listens; ends when its standard input closes.
//
//   node identity_provider.mjs FOLDER-WITH-node_modules AUDIENCE CLIENT-SECRET
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { pathToFileURL } from 'node:url';
import path from 'node:path';

const [folder, audience, secret] = process.argv.slice(2);
const entry = path.join(folder, 'node_modules/oidc-provider/lib/index.js');
const { Provider } = await import(pathToFileURL(entry).href);

const tenant = '11111111-2222-3333-4444-555555555555';
const scope = `${audience}/.default`;
// Client → what it may do. `late` gets tokens that ended ten minutes ago, `early` tokens of tomorrow.
const roles = {
  'order-worker': ['Orders.Write'],
  'second-worker': ['Orders.Write'],
  analyst: ['Orders.Read'],
  manager: ['Orders.Read', 'Orders.Write'],
  nobody: [],
  late: ['Orders.Write'],
  early: ['Orders.Write'],
};
const clients = Object.keys(roles).map((client_id) => ({
  client_id,
  client_secret: secret,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  token_endpoint_auth_method: 'client_secret_post',
}));

function shift(payload, client) {
  const seconds = { late: -4200, early: 86400 }[client] ?? 0;
  for (const name of ['iat', 'nbf', 'exp']) if (name in payload) payload[name] += seconds;
}

const shapes = {
  entra(jwt, client, kid) {
    const { iss, aud, iat, exp } = jwt.payload;
    jwt.header = { typ: 'JWT', kid };
    jwt.payload = {
      iss, aud, iat, exp, nbf: iat, azp: client, azpacr: '1', idtyp: 'app', tid: tenant, ver: '2.0',
      oid: `object-of-${client}`, sub: `object-of-${client}`, uti: randomUUID(),
      roles: roles[client],
    };
  },
  okta(jwt, client, kid) {
    const { iss, aud, iat, exp } = jwt.payload;
    jwt.header = { typ: undefined, kid };
    jwt.payload = {
      iss, aud, iat, exp, ver: 1, jti: `AT.${randomUUID()}`, cid: client, sub: client,
      scp: roles[client].map((role) => role.toLowerCase()), groups: roles[client],
    };
  },
};

function keys() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' }] };
}

function provider(issuer, shape, routes) {
  const jwks = keys();
  return new Provider(issuer, {
    clients,
    jwks,
    routes,
    scopes: [scope],
    ttl: { ClientCredentials: 3600, IdToken: 3600 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({ scope, audience, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }),
      },
    },
    formats: {
      customizers: {
        async jwt(ctx, token, jwt) {
          const client = token.clientId;
          shape(jwt, client, jwks.keys[0].kid);
          shift(jwt.payload, client);
          return jwt;
        },
      },
    },
  });
}

const server = createServer();
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const origin = `http://127.0.0.1:${server.address().port}`;
const mounts = {
  entra: { at: `/${tenant}/v2.0`, shape: shapes.entra, routes: { token: '/token', jwks: '/keys' } },
  okta: { at: '/oauth2/default', shape: shapes.okta, routes: { token: '/v1/token', jwks: '/v1/keys' } },
  foreign: { at: '/foreign/v2.0', shape: shapes.entra, routes: { token: '/token', jwks: '/keys' } },
};
const answer = { secret, scope };
for (const [name, mount] of Object.entries(mounts)) {
  const issuer = origin + mount.at;
  mount.provider = provider(issuer, mount.shape, mount.routes);
  mount.callback = mount.provider.callback();
  answer[name] = { issuer, token_endpoint: issuer + mount.routes.token };
}

// A true ID token, signed by the provider's own code.
async function idToken(mount, client_id) {
  const client = await mount.provider.Client.find(client_id);
  const ctx = { oidc: { client, provider: mount.provider } };
  const token = new mount.provider.IdToken({ sub: client_id }, { ctx, client });
  token.scope = 'openid';
  token.set('nonce', randomUUID());
  return token.issue({ use: 'idtoken' });
}

server.on('request', async (request, response) => {
  const mount = Object.values(mounts).find(({ at }) => request.url.startsWith(`${at}/`));
  if (!mount) {
    response.writeHead(404).end();
  } else if (request.url.startsWith(`${mount.at}/test-id-token/`)) {
    const token = await idToken(mount, request.url.split('/').pop());
    response.writeHead(200, { 'content-type': 'text/plain' }).end(token);
  } else {
    request.originalUrl = request.url;
    request.url = request.url.slice(mount.at.length);
    mount.callback(request, response);
  }
});
process.stdin.on('end', () => process.exit(0)).resume();
process.stdout.write(`${JSON.stringify(answer)}\n`);
