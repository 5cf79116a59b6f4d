// A certified OpenID provider (npm oidc-provider) in three shapes: Entra v2, Okta, and a stranger that
// no configuration names. Prints one JSON line when it listens. Arguments: the oidc-provider folder, and the
// port (0 for any).
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// Standard output is for the one line alone.
console.info = console.warn = console.error;

const require = createRequire(process.argv[2] + '/');
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const tenant = '11111111-2222-4333-8444-555555555555';
const audience = 'api://gatepost';
// What each application may do; its object id as Entra would know it.
const applications = {
  'order-consumer': { oid: '00000000-0000-4000-8000-000000000001', roles: ['Orders.Write'] },
  analyst: { oid: '00000000-0000-4000-8000-000000000002', roles: ['Orders.Read'] },
  nobody: { oid: '00000000-0000-4000-8000-000000000003', roles: [] },
  // Get tokens that ended an hour ago, that begin tomorrow, that end in some seconds, and that are for
  // somebody else's audience.
  late: { oid: '00000000-0000-4000-8000-000000000004', roles: ['Orders.Write'] },
  early: { oid: '00000000-0000-4000-8000-000000000006', roles: ['Orders.Write'] },
  brief: { oid: '00000000-0000-4000-8000-000000000007', roles: ['Orders.Write'] },
  misled: { oid: '00000000-0000-4000-8000-000000000005', roles: ['Orders.Write'] },
};
// Many identities, each with two applications: one as usual, and one whose tokens end almost at once.
for (let number = 0; number < 20; number += 1) {
  const oid = `00000000-0000-4000-9000-${String(number).padStart(12, '0')}`;
  applications[`fleet-${number}`] = applications[`flash-${number}`] = { oid, roles: ['Orders.Write'] };
}
const lives = (client) => (client === 'brief' ? 5 : client.startsWith('flash-') ? 2 : undefined);

const times = (client, payload) => {
  const shift = { late: -7200, early: 86400 }[client] ?? 0;
  const life = lives(client) ?? payload.exp - payload.iat;
  const [iat, exp] = [payload.iat + shift, payload.iat + shift + life];
  return { iat, nbf: iat, exp, aud: client === 'misled' ? 'api://somebody-else' : audience };
};

const entra = (client, payload) => ({
  iss: payload.iss, ...times(client, payload),
  azp: client, azpacr: '1', idtyp: 'app', oid: applications[client].oid, sub: applications[client].oid,
  tid: tenant, roles: applications[client].roles, uti: randomUUID(), ver: '2.0',
});

// Real Okta puts `uid` into tokens of people only; an application's token has its client id as subject.
const okta = (client, payload) => ({
  iss: payload.iss, ...times(client, payload),
  ver: 1, jti: 'AT.' + payload.jti, cid: client, sub: client, scp: ['orders'], groups: applications[client].roles,
});

const shapes = {
  entra: { path: `/${tenant}/v2.0`, claims: entra },
  okta: { path: '/oauth2/default', claims: okta },
  stranger: { path: '/stranger', claims: entra },
};

const newKey = () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: randomUUID() };
};

// Signs with the first key and publishes all.
const provider = (issuer, shape, keys) => {
  return new Provider(issuer, {
    clients: Object.keys(applications).map((client_id) => ({
      client_id, client_secret: 'secret-of-' + client_id, grant_types: ['client_credentials'],
      redirect_uris: [], response_types: [], token_endpoint_auth_method: 'client_secret_post',
    })),
    jwks: { keys },
    cookies: { keys: [randomUUID()] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: 'orders', audience, accessTokenTTL: 3600, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
    formats: {
      customizers: {
        jwt(ctx, token, jwt) {
          // A test may ask for a token that lives so many seconds, or is so many bytes longer.
          const { life, size } = ctx.oidc.body;
          if (life) jwt.payload.exp = jwt.payload.iat + Number(life);
          jwt.header = { ...jwt.header, typ: 'JWT' };
          jwt.payload = shape.claims(token.clientId, jwt.payload);
          if (size) jwt.payload.filler = 'x'.repeat(Number(size));
        },
      },
    },
  });
};

// A true ID token for an application, signed by the provider's own code.
const idToken = async (provider, client_id) => {
  const client = await provider.Client.find(client_id);
  const token = new provider.IdToken({ sub: client_id }, { ctx: { oidc: { client, provider } }, client });
  token.scope = 'openid';
  token.set('nonce', randomUUID());
  return token.issue({ use: 'idtoken' });
};

const mounted = [];
const mount = (mounted, keys) => {
  mounted.keys = keys;
  mounted.provider = provider(mounted.issuer, mounted.shape, keys);
  mounted.callback = mounted.provider.callback();
};

const server = createServer((request, response) => {
  const found = mounted.find(({ path }) => request.url.startsWith(path + '/'));
  if (!found) return response.writeHead(404).end();
  request.originalUrl = request.url;
  request.url = request.url.slice(found.path.length);
  const wanted = request.url.match(/^\/test-id-token\/(.+)/)?.[1];
  if (wanted) return idToken(found.provider, wanted).then((token) => response.end(token));
  if (request.url === '/test-rotate') {
    mount(found, [newKey(), ...found.keys]);
    return response.end();
  }
  if (request.url === '/test-asked') return response.end(`asked:${found.asked}\n`);
  if (request.url === '/jwks') found.asked += 1;
  return found.callback(request, response);
});
server.listen(Number(process.argv[3]), '127.0.0.1', () => {
  const origin = `http://127.0.0.1:${server.address().port}`;
  const issuers = {};
  for (const [name, shape] of Object.entries(shapes)) {
    issuers[name] = origin + shape.path;
    const one = { path: shape.path, issuer: issuers[name], shape, asked: 0 };
    mount(one, [newKey()]);
    mounted.push(one);
  }
  console.log(JSON.stringify(issuers));
});
