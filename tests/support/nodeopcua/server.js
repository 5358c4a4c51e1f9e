"use strict";
// A node-opcua server driven by JSON lines on stdin; every line is answered by one on stdout.
// Started as: node server.js '{"port": 4840, "pki": "/some/folder", "users": {"name": "password"}, "limit": 7}';
// `before` and `after` are namespaces registered ahead of the plant's own and behind it.
const readline = require("node:readline");
const {OPCUAServer} = require("node-opcua-server");
const {OPCUACertificateManager} = require("node-opcua-certificate-manager");
const {DataType, Variant} = require("node-opcua-variant");
const {StatusCodes, makeStatusCode} = (() => {
  const codes = require("node-opcua-status-code");
  const byValue = new Map(Object.values(codes.StatusCodes).map((code) => [code.value, code]));
  return {
    StatusCodes: codes.StatusCodes,
    makeStatusCode: (value) => byValue.get(value) || codes.coerceStatusCode({value}),
  };
})();
const {standardUnits} = require("node-opcua-data-access");
const {MessageSecurityMode} = require("node-opcua-types");
const {nodesets} = require("node-opcua-nodesets");

const options = JSON.parse(process.argv[2]);
const say = (thing) => process.stdout.write(JSON.stringify(thing) + "\n");

async function main() {
  const certificates = new OPCUACertificateManager({
    rootFolder: options.pki,
    automaticallyAcceptUnknownCertificate: options.trust !== false,
  });
  await certificates.initialize();
  const userCertificates =
    options.userCertificates &&
    new OPCUACertificateManager({rootFolder: options.pki + "-users", automaticallyAcceptUnknownCertificate: true});
  if (userCertificates) await userCertificates.initialize();
  const users = options.users || {};
  const server = new OPCUAServer({
    port: options.port,
    host: "127.0.0.1",
    hostname: "127.0.0.1",
    alternateHostname: ["127.0.0.1"],
    nodeset_filename: [nodesets.standard],
    serverCertificateManager: certificates,
    allowAnonymous: options.anonymous !== false,
    ...(userCertificates && {userCertificateManager: userCertificates}),
    userManager: {isValidUser: (name, password) => users[name] === password},
    ...(options.certificate && {certificateFile: options.certificate, privateKeyFile: options.key}),
    ...(options.policies && {securityPolicies: options.policies}),
    ...(options.modes && {securityModes: options.modes.map((mode) => MessageSecurityMode[mode])}),
    allowAnonymousSubscriptionTransferOnUnsecuredChannel: true,
    serverCapabilities: {
      minSupportedSampleRate: 0, // else it folds changes within 50 ms into one
      ...(options.limit && {
        operationLimits: {maxNodesPerRead: options.limit, maxMonitoredItemsPerCall: options.limit},
      }),
    },
    buildInfo: {productName: "twinloop-test"},
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  for (const uri of options.before || []) space.registerNamespace(uri);
  const plant = space.registerNamespace("urn:plant");
  for (const uri of options.after || []) space.registerNamespace(uri);
  const values = new Map();

  const set = ({name, value, status, source}) => {
    const node = values.get(name);
    const when = source === undefined ? new Date() : new Date(source);
    const code = status ? makeStatusCode(status) : StatusCodes.Good;
    node.variable.setValueFromSource(new Variant({dataType: node.type, value}), code, when);
  };
  const subscriptions = () => server.engine.getSessions().flatMap((each) => each.publishEngine.subscriptions);
  const commands = {
    add({name, type, value, unit, namespace, history}) {
      const home = namespace ? space.getNamespace(namespace) : plant;
      const dataType = DataType[type || "Double"];
      const common = {
        organizedBy: space.rootFolder.objects,
        browseName: name,
        nodeId: `s=${name}`,
        dataType: type || "Double",
        minimumSamplingInterval: 0,
      };
      const variable = unit
        ? home.addAnalogDataItem({
            ...common,
            engineeringUnitsRange: {low: -1e6, high: 1e6},
            engineeringUnits: standardUnits[unit],
          })
        : home.addVariable(common);
      if (history) space.installHistoricalDataNode(variable, {maxOnlineValues: history});
      values.set(namespace ? `${namespace};${name}` : name, {variable, type: dataType});
      if (value !== undefined) set({name: namespace ? `${namespace};${name}` : name, value});
    },
    write: set,
    writes: ({rows}) => rows.forEach(set),
    users: (changed) => Object.assign(users, changed),
    // As an administrator's console does it: the client is not asked.
    drop_sessions: () =>
      server.engine.getSessions().forEach((each) => server.engine.closeSession(each.authenticationToken, true, "Terminated")),
    drop_subscriptions: () => subscriptions().forEach((each) => each.terminate()),
    unacknowledged: () => subscriptions().flatMap((each) => each.getAvailableSequenceNumbers()),
    remove({name}) {
      space.deleteNode(values.get(name).variable.nodeId);
      values.delete(name);
    },
  };

  await server.start();
  say({ready: true, index: plant.index});
  for await (const line of readline.createInterface({input: process.stdin})) {
    try {
      const {op, ...rest} = JSON.parse(line);
      const answer = commands[op](rest);
      say({ok: true, answer});
    } catch (error) {
      say({ok: false, why: String(error)});
    }
  }
  await server.shutdown(0);
  process.exit(0);
}

main().catch((error) => {
  say({ready: false, why: String(error && error.stack)});
  process.exit(1);
});
