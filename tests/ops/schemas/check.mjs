// Objects of Kubernetes against the schemas of its API, and against their types, which also know what a field may not be
// called (the API's own schemas let unknown fields pass, and the server drops them without a word).
//
// usage: node check.mjs FOLDER OBJECTS.json     FOLDER has node_modules; prints one line a mistake, exit status 1 if any
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [folder, file] = process.argv.slice(2);
const require = createRequire(join(folder, 'package.json'));
const objects = JSON.parse(readFileSync(file, 'utf8'));
const places = { 'keda.sh': '@kubernetes-models/keda', 'monitoring.coreos.com': '@kubernetes-models/prometheus-operator' };
const mistakes = [];
const lines = [];

for (const [n, object] of objects.entries()) {
    const name = `${object.kind} ${object.metadata?.name}`;
    const module = `${places[object.apiVersion.split('/')[0]] ?? 'kubernetes-models'}/${object.apiVersion}/${object.kind}`;
    // kustomize breaks long base64 into lines, which the server takes and the schema's own check does not.
    for (const key of object.kind === 'Secret' ? Object.keys(object.data) : []) {
        object.data[key] = object.data[key].replace(/\s/g, '');
    }
    let Model;
    try {
        Model = require(module)[object.kind];
    } catch {
        mistakes.push(`${name}: ${object.apiVersion} has no ${object.kind}`);
        continue;
    }
    try {
        new Model(object).validate();
    } catch (e) {
        mistakes.push(`${name}: ${e.message}`);
    }
    lines.push(`import { ${object.kind} as K${n} } from '${module}';`,
        `export const o${n}: ConstructorParameters<typeof K${n}>[0] = // ${name}`, `${JSON.stringify({ ...object, apiVersion: undefined, kind: undefined })};`);
}
writeFileSync(join(folder, 'objects.ts'), lines.join('\n'));
try {
    execFileSync(process.execPath, [require.resolve('typescript/bin/tsc'), '--noEmit', '--strict', '--skipLibCheck', '--module', 'esnext',
        '--moduleResolution', 'bundler', '--target', 'es2022', join(folder, 'objects.ts')], { encoding: 'utf8', cwd: folder });
} catch (e) {
    for (const line of e.stdout.split('\n').filter((l) => l.includes('error TS'))) {
        const at = Number(/\((\d+),/.exec(line)?.[1] ?? 0);
        mistakes.push(`${(lines[at - 2] ?? '').split('// ')[1] ?? ''}: ${line.replace(/^.*error /, '')}`);
    }
}
for (const mistake of mistakes) {
    console.log(mistake);
}
console.log(`${objects.length} objects, ${mistakes.length} mistakes`);
process.exit(mistakes.length ? 1 : 0);
