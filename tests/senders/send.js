// Sends files with dcmjs-dimse, all over one association.
//
//   node send.js '{"port": 104, "calling": "SCANNER", "called": "AIGW", "files": [...], "tls": {...}}'
//
// prints one JSON line: the status of every file, by SOP Instance UID. NODE_PATH names the folder that has dcmjs-dimse.
'use strict';

const fs = require('fs');
const { Client, log, requests } = require('dcmjs-dimse');

log.setLevel('error');
const task = JSON.parse(process.argv[2]);
const statuses = {};
const client = new Client();
let failed = null;

for (const file of task.files) {
  const request = new requests.CStoreRequest(file);
  request.on('response', (response) => {
    statuses[request.getAffectedSopInstanceUid()] = response.getStatus();
  });
  client.addRequest(request);
}
client.on('networkError', (error) => (failed = String(error)));
client.on('associationRejected', (reject) => (failed = `rejected: ${JSON.stringify(reject)}`));
client.on('closed', () => {
  process.stdout.write(JSON.stringify({ statuses, failed }) + '\n');
});
const options = { associationTimeout: 20000, pduTimeout: 60000 };
if (task.tls) {
  options.securityOptions = {
    key: fs.readFileSync(task.tls.key),
    cert: fs.readFileSync(task.tls.certificate),
    ca: fs.readFileSync(task.tls.authority),
    rejectUnauthorized: true,
  };
}
client.send('127.0.0.1', task.port, task.calling, task.called, options);
