// Reads the cases of support_table.py with JSROOT; prints one line of JSON: what each gives, or its error.
import { readFileSync } from 'fs';
import { createRequire } from 'module';
import { pathToFileURL, fileURLToPath } from 'url';

const require = createRequire(new URL('../build/peers/', import.meta.url));
const modules = require.resolve('jsroot').replace(/(node_modules\/jsroot)\/.*/, '$1/modules/');
const load = (name) => import(pathToFileURL(modules + name));
const { openFile } = await load('io.mjs');
const { treeProcess, TSelector } = await load('tree.mjs');
const { rntupleProcess } = await load('rntuple.mjs');

const plain = (v) => v === null || v === undefined ? null
  : typeof v === 'bigint' ? Number(v)
  : typeof v === 'boolean' ? Number(v)
  : typeof v === 'string' || typeof v === 'number' ? v
  : Array.isArray(v) || ArrayBuffer.isView(v) ? Array.from(v, plain)
  : v._typename === 'TClonesArray' ? plain(v.arr)
  : Object.entries(v).filter(([k, x]) => typeof x !== 'function' && !['_typename', '$pair', 'fUniqueID', 'fBits'].includes(k)).map(([, x]) => plain(x));

const inside = (branches) => (branches?.arr ?? []).flatMap((b) => [b, ...inside(b.fBranches)]);

async function read(path, name, columns) {
  const bytes = readFileSync(path);
  const file = await openFile(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const tree = await file.readObject(name);
  const results = [];
  for (const word of columns) {
    const selector = new TSelector(), out = [];
    const branch = !tree.fBranches ? word : inside(tree.fBranches).find((b) => b.fName.split(/[./]/).at(-1) === word);
    if (!branch) throw Error(`no branch ${word}`);
    selector.addBranch(branch, 'v');
    selector.Process = function () { out.push(plain(this.tgtobj.v)); };
    await (tree.fBranches ? treeProcess(tree, selector) : rntupleProcess(tree, selector));
    results.push(out);
  }
  return results;
}

const [folder, cases] = process.argv.slice(2), results = {};
console.log = console.warn = console.error = () => {}; // it talks
for (const [name, columns] of JSON.parse(cases)) {
  try {
    const timeout = new Promise((_, reject) => setTimeout(() => reject(Error('takes too long')), 20000).unref());
    results[name] = await Promise.race([read(`${folder}/${name}.root`, name === 'folder' ? 'a/b/t' : 't', columns), timeout]);
  } catch (problem) {
    results[name] = String(problem).slice(0, 300);
  }
}
process.stdout.write(JSON.stringify(results) + '\n', () => process.exit(0));
