# node: files, a worker thread, a child, and no descriptor and no thread but its own.
cat > n.js <<'E'
const fs = require('fs'), { Worker } = require('worker_threads'), { execSync } = require('child_process');
fs.writeFileSync('f', 'x'.repeat(1 << 20)); fs.copyFileSync('f', 'g'); console.log(fs.statSync('g').size);
fs.promises.readFile('g').then(b => {
  console.log(b.length);
  new Worker('require("worker_threads").parentPort.postMessage(6 * 7)', { eval: true }).on('exit', () => {
    console.log(execSync(`readlink /proc/${process.pid}/fd/* | sed 's/[0-9][0-9]*//g' | sort -u; ls /proc/${process.pid}/task | wc -l`).toString());
  }).on('message', m => console.log(m));
});
E
node n.js; rm f g n.js
